"""Scans a folder of images and masks: `python -m semiseg_jax check DIR --class_names=a,b`."""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import sys

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from semiseg_jax.input import folder
from semiseg_jax.input.decode import DataError
from semiseg_jax.labels import IGNORE

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


def check(root: str, class_names=None, ignore_index=None, console: Console | None = None) -> int:
  """Prints what is in the folder and what is wrong with it; the number of problems.

  Without class names every id is counted as a class, to learn which there are.
  """
  console = console or Console()
  root = pathlib.Path(root)
  settings = folder.read_settings(root)
  names, palette = class_names or settings.get("class_names"), None
  if guess := not names:
    console.print("no class names given: counting the ids found in the masks")
    names = [f"id {class_id}" for class_id in range(IGNORE)]
    palette = folder.make_palette(IGNORE)
  dataset = folder.open_folder(root, class_names=names, ignore_index=ignore_index, palette=palette)
  listings = folder.list_splits(root, settings)
  orphans = [mask for listing in listings if listing for mask in listing.orphans]
  totals, table = 0, Table("class", "train pixels", "share", "val pixels", "share")
  columns = []
  for name, source in (("train", dataset.train), ("val", dataset.val)):
    pixels, problems = scan(source, name, console)
    columns.append(pixels)
    totals += sum(map(len, problems.values()))
    console.print(
      f"{name}: {len(source)} images, {int((~source.labeled).sum())} without a mask, sizes "
      f"{', '.join(f'{h}x{w}' for h, w in source.sizes[:_SHOWN])}",
      highlight=False,
    )
    for kind, messages in problems.items():
      console.print(f"[red]{len(messages)} x {kind}[/red]")
      for message in messages[:_SHOWN]:
        console.print(f"  {message}", markup=False, highlight=False, soft_wrap=True)
  for mask in orphans[:_SHOWN]:
    console.print(f"  mask without image: {mask}", markup=False, highlight=False, soft_wrap=True)
  console.print(f"{len(orphans)} masks without an image")
  for class_id, name in enumerate(names):
    if guess and not sum(column[class_id] for column in columns):
      continue
    cells = [(str(c[class_id]), f"{c[class_id] / max(c.sum(), 1):.2%}") for c in columns]
    table.add_row(name if guess else f"{class_id} {name}", *cells[0], *cells[1])
  console.print(table)
  console.print(f"{totals} problems" if totals else "no problems")
  return totals


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(prog="python -m semiseg_jax check", description=__doc__)
  parser.add_argument("root", help="directory with images/ and masks/, or a dataset.toml")
  parser.add_argument("--class_names", type=lambda text: text.split(","), help="a,b,c by id")
  parser.add_argument("--ignore_index", type=int, help="id of pixels without a label (255)")
  args = parser.parse_args(argv)
  try:
    problems = check(args.root, args.class_names, args.ignore_index)
  except (OSError, ValueError) as error:
    print(error, file=sys.stderr)
    return 1
  return 1 if problems else 0
