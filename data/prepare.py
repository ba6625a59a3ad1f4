"""Writes a dataset in the form the package reads: `python -m data.prepare NAME --raw=DIR`."""

import argparse
import collections
import contextlib
import fcntl
import importlib
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data import published
from semiseg_jax.buckets import is_bucket
from semiseg_jax.input import prepared
from semiseg_jax.input.files import is_own
from semiseg_jax.paths import local_path, user_path
from semiseg_jax.runtime.errors import in_one_line, naming

_HERE = pathlib.Path(__file__).parent
PathLike = str | os.PathLike


def prepare(
  name: str,
  raw: PathLike | None = None,
  data_dir: PathLike | None = None,
  variant: str | None = None,
  skip_bad: bool = False,
) -> pathlib.Path:
  """Prepares a dataset (a folder of data/) unless it is there; returns its directory.

  raw: the files as downloaded; data_dir: default $SEMISEG_DATA, else ~/semiseg_data. skip_bad:
  leave out and count what cannot be used, instead of raising.
  While one process prepares, others wait. Raises FileNotFoundError with what to download, and
  ValueError or FileNotFoundError naming the file that is damaged or missing.
  """
  data_dir = local_path(data_dir or prepared.default_data_dir())
  builder = builder_of(name, data_dir, variant)
  path = pathlib.Path(builder.data_path)
  if path.exists():
    return path
  needs_raw = builder.MANUAL_DOWNLOAD_INSTRUCTIONS is not None
  if needs_raw and (raw is None or not any(map(is_own, _names_in(raw)))):
    raise FileNotFoundError(_instructions(name, raw, data_dir, variant, builder))
  with _alone(data_dir / f".{name}.lock"):
    if path.exists():  # another process has made it meanwhile
      return path
    builder = builder_of(name, data_dir, variant)
    builder.skip_bad = skip_bad
    tfds.disable_progress_bar()  # the builders show one that knows how much there is
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(
        manual_dir=user_path(raw) if needs_raw else None,
        try_download_gcs=False,
      )
    )
    try:
      verify(path)
    except ValueError:
      shutil.rmtree(path)  # or the next call would take it for good
      raise
  return path


def ensure(name: str, variant: str | None = None, data_dir: PathLike | None = None) -> pathlib.Path:
  """The directory of a prepared dataset; one that needs no download is prepared on first use, but
  not into a bucket.

  A set that another program has prepared needs no builder here. Raises FileNotFoundError saying
  what to download, where to put it and which command to run.
  """
  data_dir = data_dir or prepared.default_data_dir()
  if name in builder_names() and not is_bucket(data_dir):
    return prepare(name, None, data_dir, variant)
  try:
    return prepared.find_prepared(name, data_dir, variant)
  except FileNotFoundError as error:
    if is_bucket(data_dir):
      raise FileNotFoundError(
        f"{in_one_line(error)}: prepare it in a folder here, and copy that into the bucket"
      ) from None
    raise FileNotFoundError(
      f"prepare the dataset {name} first: it is not in {data_dir}, and data/ has builders for "
      f"{', '.join(builder_names())} alone"
    ) from None


def verify(path: pathlib.Path) -> None:
  """Compares records and index. Raises ValueError if they disagree."""
  builder, seen = tfds.builder_from_directory(path), set()
  metadata = prepared.read_metadata(path)
  for split, index in metadata["splits"].items():
    source = prepared.PreparedSource(path, split, metadata)
    stored = builder.info.splits[split].num_examples
    if not len(source) == stored == len(index["counts"]) == len(index["labeled"]):
      raise ValueError(f"{path}: {stored} records of {split}, {len(source)} in the index")
    if len(set(source.ids)) != len(source) or seen & set(source.ids):
      raise ValueError(f"{path}: ids of {split} are not unique")
    seen |= set(source.ids)
    rows = np.flatnonzero(source.labeled)
    for row in {*rows[:1], *rows[len(rows) // 2 :][:1], *rows[-1:]}:
      label = source[row]["label"]
      counts = np.bincount(label.ravel(), minlength=256)[: source.counts.shape[1]]
      if (counts != source.counts[row]).any():
        raise ValueError(f"{path}: record {row} of {split} is not {source.ids[row]} of the index")


def summary(path: pathlib.Path) -> Table:
  """Images, sizes and the share of every class's pixels, by split."""
  metadata = prepared.read_metadata(path)
  splits = {split: prepared.PreparedSource(path, split, metadata) for split in metadata["splits"]}
  table = Table("", *splits, title=str(path))
  table.add_row("images", *(_found_of(len(splits[s]), metadata["official"].get(s)) for s in splits))
  sizes = lambda source: ", ".join(f"{h}x{w}" for h, w in source.sizes[:3])
  table.add_row("height x width", *map(sizes, splits.values()))
  pixels = [source.counts.sum(0) for source in splits.values()]
  table.add_row("published subsets", *(str(len(source.lists())) for source in splits.values()))
  table.add_row("labelled pixels", *(f"{count.sum():,}" for count in pixels))
  for class_id, name in enumerate(metadata["class_names"]):
    table.add_row(name, *(f"{count[class_id] / max(count.sum(), 1):.2%}" for count in pixels))
  return table


def print_summary(name: str, path: pathlib.Path, console: Console) -> None:
  """The summary, what was skipped, and what the published splits need that is not there."""
  console.print(summary(path))
  metadata = prepared.read_metadata(path)
  for split, index in metadata["splits"].items():
    kinds = collections.Counter(kind for kind, _ in index["skipped"])
    for kind, count in kinds.items():
      first = next(message for k, message in index["skipped"] if k == kind)
      text = f"[red]{split}: {count} skipped, {kind}[/red], the first: {escape(first)}"
      console.print(text, soft_wrap=True)  # so that paths can be copied
    listing = published.listing(name, split)
    if listing and listing != index["ids"]:
      console.print(
        f"[yellow]{split} is not the official list of {len(listing)} images, so the label splits "
        "published for that are not to be had",
        soft_wrap=True,
      )


def _found_of(found: int, official: int | None) -> str:
  return str(found) if official in (None, found) else f"{found} of {official}"


def builder_names() -> list[str]:
  """The datasets that can be prepared here: the folders of data/ with a builder."""
  return sorted(path.parent.name for path in _HERE.glob("*/builder.py"))


def builder_of(name: str, data_dir: pathlib.Path, variant: str | None):
  """The builder of data/NAME. ValueError for an unknown name or variant."""
  if name not in builder_names():
    raise ValueError(f"unknown dataset {name!r}; there are {builder_names()}")
  builder = importlib.import_module(f"data.{name}.builder").Builder
  variants = [config.name for config in builder.BUILDER_CONFIGS]
  if variant is not None and variant not in variants:
    raise ValueError(f"{name} has no variant {variant!r}; there are {variants}")
  return builder(config=variant, data_dir=data_dir, file_format="array_record")


def _names_in(directory: PathLike) -> list[pathlib.PurePath]:
  root = user_path(directory)
  return [path.relative_to(root) for path in root.glob("*")]


def _instructions(name, raw, data_dir, variant, builder) -> str:
  command = f"python -m data.prepare {name} --raw=RAW --data_dir={data_dir}"
  command += f" --variant={variant}" if variant else ""
  why = f"{raw} is missing or empty" if raw else f"{name} is not prepared under {data_dir}"
  return f"{why}.\n{builder.MANUAL_DOWNLOAD_INSTRUCTIONS.rstrip()}\nThen run\n  {command}"


@contextlib.contextmanager
def _alone(lock: pathlib.Path) -> Iterator[None]:
  """Holds a file lock, which the system releases however the process ends."""
  lock.parent.mkdir(parents=True, exist_ok=True)
  with open(lock, "w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(f"another process is preparing the data, waiting for {lock}", file=sys.stderr)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(prog="python -m data.prepare", description=__doc__)
  parser.add_argument("name", help="a folder of data/, such as toy_scenes or cityscapes")
  parser.add_argument("--raw", help="directory of the files as downloaded")
  parser.add_argument("--data_dir", help="where to write; default $SEMISEG_DATA or ~/semiseg_data")
  parser.add_argument("--variant", help="such as half or full for cityscapes; default: the first")
  parser.add_argument(
    "--skip_bad",
    action="store_true",
    help="leave out images that cannot be used, and count them; masks of another convention than "
    "the dataset's end it nevertheless",
  )
  args = parser.parse_args(argv)
  try:
    with naming(args.data_dir or prepared.default_data_dir()):
      path = prepare(args.name, args.raw, args.data_dir, args.variant, args.skip_bad)
  except (OSError, ValueError) as error:
    print(in_one_line(error), file=sys.stderr)
    return 1
  print_summary(args.name, path, Console())
  return 0


if __name__ == "__main__":
  sys.exit(main())
