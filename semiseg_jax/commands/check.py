"""Scans a folder of images and masks: `python -m semiseg_jax check DIR --class_names=a,b`."""

import argparse
import collections
import concurrent.futures
import os
import pathlib

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from semiseg_jax.commands.flags import class_names
from semiseg_jax.input import folder
from semiseg_jax.input.decode import DataError
from semiseg_jax.labels import IGNORE
from semiseg_jax.paths import user_path

_SHOWN = 5  # messages of one kind


def scan(
  source: folder.FolderSource, description: str, console: Console
) -> tuple[np.ndarray, dict[str, list[str]]]:
  """Reads every record: (pixels per class int64 [K], messages by kind of problem)."""
  problems = collections.defaultdict(list)

  def one(index: int) -> np.ndarray | DataError:
    try:
      label = source[index]["label"]
    except (DataError, OSError) as error:
      return error
    return np.bincount(label[label != IGNORE], minlength=source.num_classes)

  pixels = np.zeros(source.num_classes, np.int64)
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    results = pool.map(one, range(len(source)))
    for result in track(results, description, total=len(source), console=console):
      if isinstance(result, Exception):
        problems[getattr(result, "kind", "unreadable")].append(str(result))
      else:
        pixels += result
  return pixels, dict(problems)


def check(root: str, class_names: list[str] | None, ignore_index: int | None) -> int:
  """Prints what is in the folder and what is wrong with it; the number of problems.

  Without class names every id is counted as a class, to learn which there are.
  """
  console = Console(highlight=False, markup=False, soft_wrap=True)
  root = pathlib.Path(root)
  settings = folder.read_settings(root)
  names, palette = class_names or settings.get("class_names"), None
  if guess := not names:
    console.print("no class names given: counting the ids found in the masks")
    names, palette = [f"id {i}" for i in range(IGNORE)], folder.make_palette(IGNORE)
  dataset = folder.open_folder(root, class_names=names, ignore_index=ignore_index, palette=palette)
  total, columns = 0, []
  for name, source in (("train", dataset.train), ("val", dataset.val)):
    pixels, problems = scan(source, name, console)
    columns.append(pixels)
    total += sum(map(len, problems.values()))
    sizes = ", ".join(f"{h}x{w}" for h, w in source.sizes[:_SHOWN])
    unlabeled = int((~source.labeled).sum())
    console.print(f"{name}: {len(source)} images, {unlabeled} without a mask, sizes {sizes}")
    for kind, messages in problems.items():
      console.print(f"{len(messages)} x {kind}", style="red")
      console.print(*(f"  {message}" for message in messages[:_SHOWN]), sep="\n")
  splits = filter(None, folder.list_splits(root, settings))
  orphans = [f"  mask without image: {mask}" for split in splits for mask in split.orphans]
  console.print(*orphans[:_SHOWN], f"{len(orphans)} masks without an image", sep="\n")
  table = Table("class", "train pixels", "share", "val pixels", "share")
  for i, (name, *counts) in enumerate(zip(names, *columns, strict=True)):
    if not guess or any(counts):
      cells = [(str(n), f"{n / max(c.sum(), 1):.2%}") for n, c in zip(counts, columns, strict=True)]
      table.add_row(name if guess else f"{i} {name}", *cells[0], *cells[1])
  console.print(table)
  console.print(f"{total} problems" if total else "no problems")
  return total


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(prog="python -m semiseg_jax check", description=__doc__)
  parser.add_argument(
    "root", type=user_path, help="directory with images/ and masks/, or a dataset.toml"
  )
  parser.add_argument("--class_names", type=class_names, help="a,b,c by id")
  parser.add_argument("--ignore_index", type=int, help="id of pixels without a label (255)")
  args = parser.parse_args(argv)
  return 1 if check(args.root, args.class_names, args.ignore_index) else 0
