"""Sets runs side by side: `python -m semiseg_jax compare runs/a runs/b "runs/toy_*"`.

Prints last and best mIoU, status and speed of each, mean and standard deviation over seeds (of runs
that differ in nothing else), what differs in their configs; draws mIoU and loss over the steps.
"""

import argparse
import pathlib
import sys

from rich.console import Console

from semiseg_jax.paths import user_path
from semiseg_jax.runtime.comparison import class_table, config_table, grouped, scores_table
from semiseg_jax.runtime.comparison_picture import comparison_figure
from semiseg_jax.runtime.errors import in_one_line
from semiseg_jax.runtime.past_run import PastRun, find_runs, read_run, short_names
from semiseg_jax.runtime.plots import save, style

_WIDTH = 160  # letters of a line, where it is no terminal's


def compare(texts: list[str], out: pathlib.Path, console: Console) -> None:
  """Prints and draws the runs that are meant; ValueError if there is none.

  What is no run, and what is damaged, is named and left out.
  """
  runs = read_runs(texts)
  if not runs:
    raise ValueError("there is no run to show")
  groups = grouped(runs)
  tables = [scores_table(groups, console), config_table(groups, console)]
  if len(groups) == 2:
    tables.append(class_table(groups, console))
  for table in tables:
    if table.row_count:
      console.print(table)
  with style():
    save(comparison_figure(groups), out)
  console.print(f"mIoU and loss over the steps are in {out}", markup=False, soft_wrap=True)


def read_runs(texts: list[str]) -> list[PastRun]:
  """Those that these arguments mean, as far as they can be read."""
  folders, wrong = find_runs(texts)
  runs = []
  for folder, name in zip(folders, short_names(folders), strict=True):
    try:
      run = read_run(folder, name)
    except (ValueError, OSError) as error:
      wrong.append(in_one_line(error))
      continue
    runs.append(run)
    if lines := run.history.foreign:
      warn(f"{folder}: {len(lines)} lines of what is logged can't be read, first {lines[:3]}")
  for message in wrong:
    warn(f"left out: {message}")
  return runs


def warn(message: str) -> None:
  print(f"compare: {message}", file=sys.stderr)


def png_path(text: str) -> pathlib.Path:
  """For argparse."""
  path = user_path(text)
  if path.suffix.lower() != ".png" or not path.absolute().parent.is_dir():
    raise argparse.ArgumentTypeError(f"{text!r} should end in .png, in a folder that is there")
  return path


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
    prog="python -m semiseg_jax compare",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "runs", nargs="+", metavar="RUN", help="a working directory, a folder of them, a pattern"
  )
  parser.add_argument("--out", type=png_path, default="compare.png", help="the picture")
  args = parser.parse_args(argv)
  console = Console(highlight=False)
  if not console.is_terminal:
    console.width = _WIDTH
  compare(args.runs, args.out, console)
  return 0
