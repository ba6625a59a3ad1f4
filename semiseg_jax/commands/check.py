"""Scans a dataset: `python -m semiseg_jax check DIR --class_names=a,b`, or `check cityscapes`.

DIR is a folder of images and masks, or one that `python -m data.prepare` wrote.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from semiseg_jax.commands.flags import class_names, here
from semiseg_jax.input import folder, prepared
from semiseg_jax.input.decode import DataError
from semiseg_jax.input.findings import Pixels, added, count_pixels, findings
from semiseg_jax.input.local_copy import local_copy
from semiseg_jax.input.settings import read_settings
from semiseg_jax.input.sources import Dataset, Source
from semiseg_jax.labels import IGNORE
from semiseg_jax.paths import user_path
from semiseg_jax.runtime.errors import in_one_line

_SHOWN = 5  # messages of one kind
_SPLITS = ("train", "val", "extra", "test")


class Problem(NamedTuple):
  """What is wrong with a record. files: which of its files, or of a prepared set SPLIT/ID."""

  kind: str
  message: str
  files: list[str]


def scan(
  source: Source, num_classes: int, split: str, console: Console
) -> tuple[Pixels, list[Problem]]:
  """Reads every record."""

  def one(index: int) -> Pixels | Problem:
    try:
      label = source[index]["label"]
      if not source.labeled[index]:
        return Pixels(np.zeros(num_classes, np.int64))
      found = count_pixels(label, num_classes)
      check_counts(source, index, split, label.size, found)
      return found
    except (DataError, OSError) as error:
      kind = getattr(error, "kind", "unreadable")
      return Problem(kind, in_one_line(error), _files(source, index, split, str(error)))

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    results = pool.map(one, range(len(source)))
    results = list(track(results, split, total=len(source), console=console))
  good = [result for result in results if isinstance(result, Pixels)]
  return added(good, num_classes), [result for result in results if isinstance(result, Problem)]


def check_counts(source: Source, index: int, split: str, size: int, found: Pixels) -> None:
  """DataError unless the label's pixels are of classes, as many as a prepared set says."""
  where = f"record {source.ids[index]!r} of {split}"
  if others := size - int(found.of_class.sum()) - found.ignored:
    raise DataError("label range", f"{where}: {others} pixels are of no class")
  if source.counts is not None and (source.counts[index] != found.of_class).any():
    raise DataError("changed", f"{where} has other pixels than when it was prepared")


def _files(source: Source, index: int, split: str, message: str) -> list[str]:
  """Those that the message names."""
  if not isinstance(source, folder.FolderSource):
    return [f"{split}/{source.ids[index]}"]
  files = source.listing.images[index], source.listing.masks[index]
  return [str(file) for file in files if str(file) in message]


def check(dataset: Dataset, console: Console, names_are_known: bool = True) -> list[Problem]:
  """Prints what is in the dataset and what is wrong with it; the problems.

  Without names of the classes, which then are ids, only those that occur are shown.
  """
  info, problems, columns, warnings = dataset.info, [], {}, 0
  for split in _SPLITS:
    source = getattr(dataset, split)
    if source is None:
      continue
    pixels, found = scan(source, info.num_classes, split, console)
    masks = int(np.sum(source.labeled))
    sizes = ", ".join(f"{h}x{w}" for h, w in source.sizes[:_SHOWN])
    console.print(
      f"{split}: {len(source)} images, {len(source) - masks} without a mask, sizes {sizes}"
    )
    _print_problems(found, console)
    problems += found
    if not masks:
      continue
    columns[split] = pixels
    unusual = findings(pixels, f"the {masks} masks of {split}", info) if names_are_known else []
    for line in unusual:
      console.print(line, style="yellow")
    if pixels.ignored and not pixels.of_class.any():
      problems.append(Problem("no label", unusual.pop(0), []))
    warnings += len(unusual)
  console.print(_table(info.class_names, columns, names_are_known))
  total = f"{len(problems)} problems" if problems else "no problems"
  console.print(total + (f", {warnings} warnings" if warnings else ""))
  return problems


def _print_problems(problems: list[Problem], console: Console) -> None:
  by_kind = collections.defaultdict(list)
  for problem in problems:
    by_kind[problem.kind].append(problem.message)
  for kind, messages in by_kind.items():
    console.print(f"{len(messages)} x {kind}", style="red")
    console.print(*(f"  {message}" for message in messages[:_SHOWN]), sep="\n")


def _table(names: tuple[str, ...], columns: dict[str, Pixels], names_are_known: bool) -> Table:
  """Each class's pixels and their share of the labelled ones; what is ignored, of all."""
  table = Table("class", *(title for split in columns for title in (f"{split} pixels", "share")))
  cells = lambda count, total: (str(count), f"{count / max(total, 1):.2%}")
  for i, name in enumerate(names):
    if names_are_known or any(pixels.of_class[i] for pixels in columns.values()):
      row = (cells(p.of_class[i], p.of_class.sum()) for p in columns.values())
      table.add_row(f"{i} {name}" if names_are_known else name, *sum(row, ()))
  row = (cells(p.ignored, p.of_class.sum() + p.ignored) for p in columns.values())
  table.add_row("ignored, of all", *sum(row, ()))
  return table


def check_folder(
  root: pathlib.Path, names: list[str] | None, ignore_index: int | None, console: Console
) -> list[Problem]:
  """`check` of a folder of images and masks; without class names every id is taken for one."""
  settings = read_settings(root)
  names = names or settings.get("class_names")
  if guess := not names:
    console.print("no class names given: counting the ids found in the masks")
    names = [f"id {i}" for i in range(len(settings.get("palette", range(IGNORE))))]
  dataset = folder.open_folder(root, class_names=names, ignore_index=ignore_index)
  splits = filter(None, folder.list_splits(root, settings))
  orphans = [f"  mask without image: {mask}" for split in splits for mask in split.orphans]
  console.print(*orphans[:_SHOWN], f"{len(orphans)} masks without an image", sep="\n")
  return check(dataset, console, not guess)


def find_prepared(
  root: pathlib.Path, data_dir: pathlib.Path | None, variant: str | None
) -> pathlib.Path | None:
  """The directory of a prepared dataset, named or lying there; None where root is another folder.

  Raises FileNotFoundError for a name of neither.
  """
  if (root / prepared.METADATA).is_file():
    return root
  is_name = not root.exists() and len(root.parts) == 1
  name, where = str(root), data_dir or prepared.default_data_dir()
  if not is_name:
    name, where = root.resolve().name, root.resolve().parent
  try:
    return prepared.find_prepared(name, where, variant)
  except FileNotFoundError as error:
    if is_name and not name.startswith("~"):
      raise FileNotFoundError(f"there is no folder {name}, and {error}") from error
    return None


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(prog="python -m semiseg_jax check", description=__doc__)
  parser.add_argument(
    "root",
    metavar="DIR",
    type=user_path,
    help="a folder with images/ and masks/ or a dataset.toml, a prepared one, or a prepared one's "
    "name, such as cityscapes",
  )
  parser.add_argument("--class_names", type=class_names, help="of a folder: a,b,c by id")
  parser.add_argument("--ignore_index", type=int, help="of a folder: id of no label (255)")
  parser.add_argument("--data_dir", type=user_path, help="where prepared datasets are")
  parser.add_argument("--variant", help="of a prepared dataset, where there are several")
  parser.add_argument(
    "--list", type=here, help="writes the bad files here, a path (prepared: SPLIT/ID) a line"
  )
  args = parser.parse_args(argv)
  console = Console(highlight=False, markup=False, soft_wrap=True)
  root = local_copy(args.root)
  if directory := find_prepared(root, args.data_dir, args.variant):
    if args.class_names or args.ignore_index is not None:
      raise ValueError(f"{directory} is prepared: it takes no --class_names and --ignore_index")
    console.print(str(directory))
    problems = check(prepared.open_directory(directory, directory.name), console)
  else:
    problems = check_folder(root, args.class_names, args.ignore_index, console)
  if args.list:
    files = dict.fromkeys(file for problem in problems for file in problem.files)
    args.list.write_text("".join(f"{file}\n" for file in files))
    console.print(f"{len(files)} bad files are listed in {args.list}")
  return 1 if problems else 0
