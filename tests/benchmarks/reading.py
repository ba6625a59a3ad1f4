"""How fast images are read, next to the bare decoder: `python -m tests.benchmarks.reading`.

Prepares small sets of enlarged toy scenes with sensor noise, whose files weigh what those of
Cityscapes (full and half size) and Pascal VOC do, and reads them again and again, so from the page
cache. Rates are images/s, the best of several rounds over all measurements; the profile says where
one thread spends a batch's time.

bare decoder: OpenCV on the bytes of image and label in memory. records: source[i]. pipeline:
batches after the transform, in the main thread alone, with 2 threads, with 1 and 2 worker processes
of one thread each.
"""

import argparse
import concurrent.futures
import contextlib
import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds
from rich.console import Console
from rich.table import Table

from data import common
from data.toy_scenes import street
from semiseg_jax.input import decode
from semiseg_jax.input.pipeline import Stream, train_batches
from semiseg_jax.input.prepared import PreparedSource
from semiseg_jax.transforms import make_transform

_BUFFER = 2  # batches read ahead


class Kind(NamedTuple):
  """What is read. size: (width, height); noise: standard deviation that makes the files weigh as
  real ones; batch: images of each of two streams."""

  name: str
  size: tuple[int, int]
  suffix: str
  noise: float
  scale_range: tuple[float, float]
  crop: tuple[int, int]
  batch: int


KINDS = (
  Kind("2048x1024 PNG", (2048, 1024), "png", 1.1, (1.0, 1.0), (512, 512), 2),
  Kind("1024x512 PNG", (1024, 512), "png", 1.6, (1.0, 1.0), (512, 512), 2),
  Kind("500x375 JPEG", (500, 375), "jpg", 2.0, (0.5, 1.5), (321, 321), 10),
)
PIPELINES = {  # threads and worker processes
  "pipeline, main thread": (0, 0),
  "pipeline, 2 threads": (2, 0),
  "pipeline, 1 worker": (1, 1),
  "pipeline, 2 workers": (1, 2),
}


class Builder(common.FileBuilder, skip_registration=True):
  """RAW/*.png|jpg with RAW/masks/*.png."""

  name = "semiseg_reading"
  VERSION = tfds.core.Version("1.0.0")
  CLASS_NAMES, PALETTE = common.read_classes("toy_scenes")
  CLASS_OF_ID = common.class_of_id(range(10))
  NUM_IMAGES = MappingProxyType({})
  MANUAL_DOWNLOAD_INSTRUCTIONS = "made by this benchmark"

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    images = common.list_files(raw, "*.*")
    masks = [raw / "masks" / f"{path.stem}.png" for path in images]
    items = [common.Item(i.stem, i, m) for i, m in zip(images, masks, strict=True)]
    return {"train": items}


def write_raw(raw: pathlib.Path, kind: Kind, count: int) -> None:
  """Enlarged scenes as files; the same ones at every call."""
  (raw / "masks").mkdir(parents=True)
  for number in range(count):
    rng = np.random.default_rng([number, *kind.size])
    image, label = street.make_scene(rng)
    image = cv2.resize(image, kind.size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    image += kind.noise * rng.standard_normal(image.shape, np.float32)
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    label = cv2.resize(label, kind.size, interpolation=cv2.INTER_NEAREST_EXACT)
    cv2.imwrite(str(raw / f"{number:03d}.{kind.suffix}"), image[..., ::-1])
    cv2.imwrite(str(raw / "masks" / f"{number:03d}.png"), label)


def prepare(directory: pathlib.Path, kind: Kind, count: int) -> PreparedSource:
  """The set in the form in which every dataset is stored."""
  write_raw(directory / "raw", kind, count)
  builder = Builder(data_dir=directory, file_format="array_record")
  tfds.disable_progress_bar()
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(
      manual_dir=directory / "raw", try_download_gcs=False
    )
  )
  return PreparedSource(builder.data_path, "train")


def encoded_records(source: PreparedSource) -> list[tuple[np.ndarray, np.ndarray]]:
  """The bytes of every image and label, as OpenCV takes them."""
  raw = tfds.decode.SkipDecoding()
  records = tfds.builder_from_directory(source.directory).as_data_source(
    "train", decoders={"image": raw, "label": raw}
  )
  as_array = lambda data: np.frombuffer(data, np.uint8)
  return [(as_array(record["image"]), as_array(record["label"])) for record in records]


def decode_bare(record: tuple[np.ndarray, np.ndarray]) -> None:
  image, label = record
  cv2.imdecode(image, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
  cv2.imdecode(label, cv2.IMREAD_UNCHANGED)


def rate(call: Callable[[], Any], seconds: float, images: int = 1) -> float:
  """Images/s of a call that makes `images`."""
  calls, start = 0, time.perf_counter()
  while (spent := time.perf_counter() - start) < seconds:
    call()
    calls += 1
  return calls * images / spent


def batches(source: PreparedSource, kind: Kind, threads: int, workers: int) -> Iterator:
  config = {"name": "scale_crop", "scale_range": kind.scale_range}
  stream = Stream(source, make_transform(config, kind.crop), kind.batch)
  streams = {"labeled": stream, "unlabeled": stream}
  return train_batches(streams, seed=0, threads=threads, workers=workers, buffer=_BUFFER)


def pipeline_rate(
  source: PreparedSource, kind: Kind, threads: int, workers: int, seconds: float
) -> float:
  """Images/s once everything has started and what was read ahead is used up."""
  iterator = batches(source, kind, threads, workers)
  for _ in range(1 + _BUFFER * max(workers, 1)):
    next(iterator)
  found = rate(lambda: next(iterator), seconds, 2 * kind.batch)
  iterator.close()
  return found


def rates(source: PreparedSource, kind: Kind, seconds: float) -> dict[str, float]:
  """One round of all measurements."""
  encoded = encoded_records(source)
  records, rows = itertools.cycle(encoded), itertools.cycle(range(len(source)))
  bare = lambda: decode_bare(next(records))
  found = {"bare decoder": rate(bare, seconds)}
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    every = lambda: list(pool.map(decode_bare, encoded))
    found["bare decoder, 2 threads"] = rate(every, seconds, len(encoded))
  found["records"] = rate(lambda: source[next(rows)], seconds)
  for name, (threads, workers) in PIPELINES.items():
    found[name] = pipeline_rate(source, kind, threads, workers, seconds)
  return found


@contextlib.contextmanager
def timed(owner: Any, name: str, spent: dict[str, float]) -> Iterator[None]:
  """Adds up in spent[name] how long calls of owner.name take."""
  function, spent[name] = getattr(owner, name), 0.0

  def wrapped(*args, **kwargs):
    start = time.perf_counter()
    try:
      return function(*args, **kwargs)
    finally:
      spent[name] += time.perf_counter() - start

  setattr(owner, name, wrapped)
  try:
    yield
  finally:
    setattr(owner, name, function)


def profile(source: PreparedSource, kind: Kind, seconds: float) -> dict[str, float]:
  """Milliseconds an image of one thread: decoding, transform, reading the record, all else."""
  transform, spent = type(make_transform({"name": "scale_crop"}, kind.crop)), {}
  with (
    timed(decode, "decode_image", spent),
    timed(decode, "decode_label", spent),
    timed(PreparedSource, "__getitem__", spent),
    timed(transform, "random_map", spent),
  ):
    iterator = batches(source, kind, 0, 0)
    next(iterator)
    spent.update(dict.fromkeys(spent, 0.0))
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
      next(iterator)
      count += 2 * kind.batch
    total = time.perf_counter() - start
    iterator.close()
  decoding = spent["decode_image"] + spent["decode_label"]
  parts = {
    "decoding": decoding,
    "transform": spent["random_map"],
    "reading the record": spent["__getitem__"] - decoding,
    "all else": total - spent["__getitem__"] - spent["random_map"],
  }
  return {name: 1000 * part / count for name, part in parts.items()}


def raw_milliseconds(source: PreparedSource, seconds: float) -> float:
  """Of fetching and decompressing a record alone, which the file format fixes."""
  records = tfds.builder_from_directory(source.directory).as_data_source(
    "train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
  )
  rows = itertools.cycle(range(len(source)))
  return 1000 / rate(lambda: records[next(rows)], seconds)


def best(rounds: list[dict[str, float]]) -> dict[str, float]:
  return {name: max(found[name] for found in rounds) for name in rounds[0]}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--images", type=int, default=24, help="of each set")
  parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
  parser.add_argument("--rounds", type=int, default=3)
  args = parser.parse_args()
  console = Console(highlight=False)
  found, parts, raw, weight = {}, {}, {}, {}
  for kind in KINDS:
    with tempfile.TemporaryDirectory() as directory:
      source = prepare(pathlib.Path(directory), kind, args.images)
      weight[kind.name] = np.mean([image.size for image, _ in encoded_records(source)]) / 1000
      found[kind.name] = best([rates(source, kind, args.seconds) for _ in range(args.rounds)])
      profiles = [profile(source, kind, args.seconds) for _ in range(args.rounds)]
      parts[kind.name] = min(profiles, key=lambda parts: sum(parts.values()))
      raw[kind.name] = raw_milliseconds(source, args.seconds)
    console.print(f"{kind.name}: measured")
  names = [kind.name for kind in KINDS]
  table = Table("images/s (of the bare decoder's)", *names)
  table.add_row("KB an image", *(f"{weight[name]:.0f}" for name in names))
  for row in found[names[0]]:
    cells = [(found[name][row], found[name][row] / found[name]["bare decoder"]) for name in names]
    table.add_row(row, *(f"{value:.1f} ({ratio:.2f})" for value, ratio in cells))
  console.print(table)
  table = Table("ms an image in one thread (share)", *names)
  for row in parts[names[0]]:
    cells = [(parts[name][row], parts[name][row] / sum(parts[name].values())) for name in names]
    table.add_row(row, *(f"{value:.2f} ({share:.1%})" for value, share in cells))
  table.add_row("of reading: decompressing", *(f"{raw[name]:.2f}" for name in names))
  console.print(table)


if __name__ == "__main__":
  main()
