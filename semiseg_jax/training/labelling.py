"""A network labels a set of images to disk, on every device of every process.

Images are dealt out in chunks; each process labels its own on its own devices, without a word to
the others, and a chunk that is there is not made again. Statistics of all chunks give the
thresholds at the end.
"""

import collections
import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from rich.progress import track

from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.evaluation.decide import argmax_with_confidence
from semiseg_jax.evaluation.inference import whole
from semiseg_jax.evaluation.pictures import write_palette_png
from semiseg_jax.files import write_json
from semiseg_jax.input import class_balance, pseudo_labels
from semiseg_jax.input.pipeline import EvalBatches
from semiseg_jax.input.pseudo_labels import ChunkWriter, PseudoLabels
from semiseg_jax.input.sources import Source, Subset, Transformed, largest_size
from semiseg_jax.labels import IGNORE
from semiseg_jax.models.network import Network, Variables
from semiseg_jax.runtime import processes
from semiseg_jax.runtime.mesh import make_mesh, replicate, shard_batch
from semiseg_jax.runtime.report import jsonable
from semiseg_jax.transforms import geometry
from semiseg_jax.transforms.evaluation import EvalTransform
from semiseg_jax.transforms.geometry import Record
from semiseg_jax.values import Batch, Count, Size

_IN_FLIGHT = 2  # batches that wait to be counted and written


@dataclasses.dataclass(frozen=True)
class Labelling:
  """How images are labelled; defaults are those of DST-CBC's branch `scale`, as DMT mends it.

  version: of the rule, scale | published. batch: images at a time. size: (height, width) that
  images are padded to, None for the largest. label_size: of the maps, None for the images' own.
  chunk: images of a file, about, which a process makes, or loses, as a whole. stride: of the pixels
  that thresholds are taken from. per_class: a threshold for each class instead of one for all.
  exact: thresholds from all those pixels' values instead of a histogram.
  """

  version: Literal[*class_balance.VERSIONS] = "scale"
  batch: Batch = 8
  size: Size | None = None
  label_size: Size | None = None
  chunk: Count = 64
  stride: Count = 16
  per_class: bool = True
  exact: bool = False


# Of a chunk: int64 [C,NUM_BINS] counts of the pixels that thresholds are taken from ("sampled"),
# of all, of those whose true label is known, and of those that are right; the number of pixels;
# in exact mode label and confidence of what was sampled.
Statistics = dict[str, np.ndarray]


def label_images(
  directory: pathlib.Path,
  source: Source,
  variables: Variables,
  network: Network,
  class_names: Sequence[str],
  settings: Labelling,
  transform: EvalTransform,
  ratio: float,
  about: dict[str, Any],
) -> dict[str, Any]:
  """Labels every image of the source into `directory`; returns labels.json but for the ids.

  ratio: share of each class's pixels that is to pass. about: what labels, for the reader. The true
  labels of the source, where it has some, are only counted for the report. What was done before a
  kill is kept; finished labels are returned as they are, ValueError if they were asked for
  otherwise.
  """
  request = {"about": about, "ratio": ratio, "labelling": dataclasses.asdict(settings)}
  if not (directory / pseudo_labels.INDEX).exists():
    directory.mkdir(parents=True, exist_ok=True)
    passes = _Pass(directory, source, variables, network, class_names, settings, transform)
    found = passes.published(ratio) if settings.version == "published" else passes.scale(ratio)
    if jax.process_index() == 0:
      named = {"class_names": list(class_names), "ids": list(source.ids)}
      write_json(directory / pseudo_labels.INDEX, jsonable({**request, **found, **named}))
    processes.barrier("indexed")
  index = pseudo_labels.read_index(directory)
  request = json.loads(json.dumps(request))  # tuples become lists
  if there := [
    f"{k}: {index.get(k)} there, {v} now" for k, v in request.items() if index.get(k) != v
  ]:
    raise ValueError(f"{directory} holds other pseudo-labels, {'; '.join(there)}: move it away")
  return {key: value for key, value in index.items() if key != "ids"}


def export_labels(labels: PseudoLabels, out: pathlib.Path, palette: np.ndarray) -> None:
  """Writes out/ID.png, each image's pseudo-label in its own size and the dataset's colours."""
  for row, name in enumerate(track(labels.ids, description="exporting")):
    record = labels[row]
    path = out / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    label = geometry.floor_nearest(record["label"], record["image"].shape[:2])
    write_palette_png(path, label, palette)


class _Sized(Transformed):
  """Images as the network sees them, and how large they were."""

  def __getitem__(self, index: int) -> Record:
    record = self.source[index]
    size = np.asarray(record["image"].shape[:2], np.int32)
    return {**self.transform(record), "native_size": size}


class _Pass:
  """The network over this process's chunks."""

  def __init__(
    self,
    directory: pathlib.Path,
    source: Source,
    variables: Variables,
    network: Network,
    class_names: Sequence[str],
    settings: Labelling,
    transform: EvalTransform,
  ):
    self.directory, self.settings, self.classes = directory, settings, len(class_names)
    self.source = _Sized(source, transform)
    self.size = tuple(settings.size or largest_size(self.source.sizes))
    self.mesh = make_mesh(jax.local_devices())
    self.variables = replicate(variables, self.mesh)
    self.predict = _make_predict(network, self.mesh, settings.label_size)
    images = settings.batch * -(-settings.chunk // settings.batch)  # no batch lies in two chunks
    self.chunks = [
      range(start, min(start + images, len(source))) for start in range(0, len(source), images)
    ]

  def scale(self, ratio: float) -> dict[str, Any]:
    """One pass; what passes the thresholds is decided by who reads the labels."""
    found = self.run("labeled", None, writes=True)
    thresholds = self.thresholds(found, ratio)
    bins = class_balance.bins_of(thresholds)
    passed = np.arange(class_balance.NUM_BINS) >= bins[:, None]
    counts = {name: (found[name] * passed).sum(axis=1) for name in ("all", "known", "right")}
    shares = _shares(counts, found["all"].sum(axis=1), found["pixels"])
    return {"final": False, "thresholds": thresholds, **shares}

  def published(self, ratio: float) -> dict[str, Any]:
    """Thresholds first, since they have a say in which class a pixel is of; then the labels."""
    seen = self.run("sampled", None, writes=False)
    thresholds = self.thresholds(seen, ratio)
    found = self.run("labeled", thresholds, writes=True)
    counts = {name: found[name].sum(axis=1) for name in ("all", "known", "right")}
    shares = _shares(counts, seen["all"].sum(axis=1), found["pixels"])
    return {"final": True, "thresholds": thresholds, **shares}

  def thresholds(self, found: Statistics, ratio: float) -> np.ndarray:
    rule = {"version": self.settings.version, "per_class": self.settings.per_class}
    if not self.settings.exact:
      return class_balance.thresholds_of_histogram(found["sampled"], ratio, **rule)
    label, confidence = found["sampled_label"], found["sampled_confidence"]
    return class_balance.exact_thresholds(label, confidence, self.classes, ratio, **rule)

  def run(self, name: str, divisors: np.ndarray | None, writes: bool) -> Statistics:
    """Statistics of all chunks; this process's are made unless they are there. divisors: of the
    probabilities before the most likely class is taken, which then is IGNORE below 1. writes: the
    labels too."""
    paths = [self.directory / f"{name}_{number:05d}.npz" for number in range(len(self.chunks))]
    with ThreadPoolExecutor(1) as counter:
      for number in range(jax.process_index(), len(paths), jax.process_count()):
        if not paths[number].exists():
          chunk = self.directory / f"chunk_{number:05d}.arrayrecord"
          out = ChunkWriter(chunk) if writes else None
          batches = self.predicted(self.chunks[number], divisors)
          take = functools.partial(self.taken, out=out)
          found = _added(_behind(counter, take, batches))
          if out:
            out.close()
          write_npz(paths[number], found)
    processes.barrier(name)
    return _added(dict(np.load(path)) for path in paths)

  def predicted(self, rows: range, divisors: np.ndarray | None) -> Iterator[Record]:
    """Batches with their maps, each fetched when the next is on its way."""
    settings, subset = self.settings, Subset(self.source, rows)
    batches = EvalBatches(
      subset, batch=settings.batch, size=self.size, host=(0, 1), devices=self.mesh.size
    )
    sent = (
      (batch, self.predict(self.variables, shard_batch(batch["image"], self.mesh), divisors))
      for batch in batches
    )
    for (batch, maps), _ in itertools.pairwise(itertools.chain(sent, [None])):
      predicted, confidence = map(np.asarray, maps)
      yield {**batch, "predicted": predicted, "confidence": confidence}

  def taken(self, batch: Record, out: ChunkWriter | None) -> Statistics:
    """What one batch adds to its chunk."""
    pixels = []
    for row, index in enumerate(batch["index"]):
      if index < 0:  # a filler
        continue
      grid = batch["predicted"].shape[1:]
      truth = batch["label"][row]
      truth = truth if truth.shape == grid else geometry.floor_nearest(truth, grid)
      limits = [grid, batch["native_size"][row]]
      limits += [] if self.settings.label_size else [batch["valid_size"][row]]
      cut = tuple(slice(0, int(min(sides))) for sides in zip(*limits, strict=True))
      label, confidence = batch["predicted"][row][cut], batch["confidence"][row][cut]
      if out:
        out.write(label, confidence)
      first = 0
      if self.settings.version == "published":  # the stride runs on through a batch
        first = -int(index) % self.settings.batch * label.size % self.settings.stride
      is_sampled = np.arange(label.size) % self.settings.stride == first
      pixels.append([x.reshape(-1) for x in (label, confidence, truth[cut], is_sampled)])
    label, confidence, truth, is_sampled = map(np.concatenate, zip(*pixels, strict=True))
    masks = {
      "sampled": is_sampled,
      "all": np.ones(label.size, bool),
      "known": truth != IGNORE,
      "right": (truth == label) & (truth != IGNORE),
    }
    count = lambda mask: class_balance.histogram(label[mask], confidence[mask], self.classes)
    found = {name: count(mask) for name, mask in masks.items()} | {"pixels": np.asarray(label.size)}
    if self.settings.exact:
      found |= {"sampled_label": label[is_sampled], "sampled_confidence": confidence[is_sampled]}
    return found


def _make_predict(
  network: Network, mesh: Mesh, label_size: tuple[int, int] | None
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """The jitted (variables, images [B,H,W,3], divisors) -> (label uint8 [B,h,w], confidence)."""

  def per_device(variables, images, divisors):
    logits = whole(network, variables, images, label_size)
    label, confidence = argmax_with_confidence(logits)
    if divisors is not None:
      label = class_balance.divided(jax.nn.softmax(logits), divisors)
    return label.astype(jnp.uint8), confidence

  specs = (P(), P(DATA_AXIS), P())
  mapped = jax.shard_map(per_device, mesh=mesh, in_specs=specs, out_specs=P(DATA_AXIS))
  return jax.jit(mapped)


def _behind(executor: ThreadPoolExecutor, function: Callable, items: Iterable) -> Iterator:
  """function(item) of all, by another thread, at most so many of them behind."""
  waiting = collections.deque()
  for item in items:
    waiting.append(executor.submit(function, item))
    if len(waiting) > _IN_FLIGHT:
      yield waiting.popleft().result()
  yield from (future.result() for future in waiting)


def _added(parts: Iterable[Statistics]) -> Statistics:
  """Counts of several parts together; lists one behind the other."""

  def both(a: np.ndarray, b: np.ndarray, name: str) -> np.ndarray:
    return np.concatenate([a, b]) if name.startswith("sampled_") else a + b

  return functools.reduce(lambda a, b: {k: both(a[k], b[k], k) for k in a}, parts)


def _shares(
  kept: dict[str, np.ndarray], of_class: np.ndarray, pixels: np.ndarray
) -> dict[str, Any]:
  """Shares of all pixels and of each class's that are kept, and of the kept ones that are right,
  where that is known; None where there is none. kept: pixels [C]; of_class: pixels predicted."""
  share = lambda a, b: float(a / b) if b else None
  return {
    "kept": share(kept["all"].sum(), pixels),
    "kept_of_class": [share(a, b) for a, b in zip(kept["all"], of_class, strict=True)],
    "right": share(kept["right"].sum(), kept["known"].sum()),
    "right_of_class": [share(a, b) for a, b in zip(kept["right"], kept["known"], strict=True)],
  }


def write_npz(path: pathlib.Path, arrays: Statistics) -> None:
  """Atomically."""
  part = path.with_name(f"{path.name}.part")
  with part.open("wb") as file:
    np.savez_compressed(file, **arrays)
  part.replace(path)
