"""What a conversion took, left out and left fresh, for people."""

import collections
import math
import pathlib

from rich.console import Console
from rich.table import Table

from semiseg_jax.convert.assign import A_COUNTER, Report
from semiseg_jax.convert.weights import Weights

_SHOWN = 5  # modules in a line


def named_origin(name: str, weights: Weights) -> str:
  """What was read, which network of it was taken, beside which others, and whose layout it has."""
  origin = weights.about["origin"]
  if origin["file"] != name or not origin.get("network"):  # converted from another file, or alone
    return f"{name}, {weights.family.title}"
  beside = f", beside {', '.join(origin['others'])}" if origin["others"] else ""
  return f"{name} ({origin['network']} in it{beside}), {weights.family.title}"


def summary(report: Report) -> str:
  """One line: counts, by the top-level modules of the network and of the file."""
  text = f"{len(report.taken)} tensors taken"
  left = [key for key, _, why in report.left if why != A_COUNTER]
  if left:
    text += f", {len(left)} without use ({_modules(left)})"
  if report.fresh:
    fresh = [path for path, _ in report.fresh]
    text += f", {len(fresh)} arrays of the network stay fresh: {_modules(fresh)}"
  return text


def print_report(report: Report, console: Console) -> None:
  """A table: what was taken by module, what was not by name."""
  table = Table()
  for title in ("", "tensor", "shape", "ours"):
    table.add_column(title, overflow="fold")  # names are never cut off
  sizes = collections.defaultdict(list)
  for _, path, shape in report.taken:
    sizes[path.split(".")[0].split("[")[0]].append(math.prod(shape))
  for module, values in sizes.items():
    table.add_row("mapped", f"{len(values)} tensors", f"{sum(values):,} values", module)
  counters = sum(why == A_COUNTER for *_, why in report.left)
  if counters:
    table.add_row("kept apart", f"{counters} num_batches_tracked", "", "used on the way back")
  for key, shape, why in report.left:
    if why != A_COUNTER:
      table.add_row("skipped", key, str(tuple(shape)), why)
  for path, shape in report.fresh:
    table.add_row("missing", "", str(tuple(shape)), f"{path}, stays fresh")
  console.print(table)


def write_report(report: Report, path: pathlib.Path) -> None:
  """Every tensor and every leaf on a line: what became of it, key, shape, our path."""
  rows = [("mapped", key, shape, ours) for key, ours, shape in report.taken]
  rows += [("skipped", key, shape, why) for key, shape, why in report.left]
  rows += [("missing", "", shape, ours) for ours, shape in report.fresh]
  lines = ("\t".join((what, key, str(tuple(shape)), ours)) for what, key, shape, ours in rows)
  path.write_text("\n".join(("what\ttensor\tshape\tours", *lines)) + "\n")


def _modules(names: list[str]) -> str:
  """How many there are of each module, the first few of these."""
  counts = collections.Counter(name.split(".")[0] for name in names)
  shown = [f"{name} {count}" for name, count in counts.most_common(_SHOWN)]
  rest = counts.total() - sum(count for _, count in counts.most_common(_SHOWN))
  return ", ".join(shown) + (f" and {rest} in others" if rest else "")
