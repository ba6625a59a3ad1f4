"""What people see of a run in rounds: a table of its stages, one of its classes, and curves."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from semiseg_jax.input.sources import DatasetInfo
from semiseg_jax.runtime.curves import class_lines
from semiseg_jax.runtime.history import number
from semiseg_jax.runtime.plots import INK, Line, add_panel, draw_lines, new_figure, save, style
from semiseg_jax.runtime.report import empty_table, percent

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_COLORS = (INK, "#c83c28")  # of the first network's curve and of the second's


def report(
  workdir: pathlib.Path,
  results: Mapping[str, Mapping[str, Any]],
  info: DatasetInfo,
  console: Console | None = None,
) -> None:
  """Prints the summary of all stages and draws it into workdir/pictures/rounds.png.

  results: summary.json's, of one or two networks.
  """
  console = console or Console(highlight=False)
  for table in (stage_table(results, console), class_table(results, info, console)):
    if table.row_count:
      console.print(table)
  (workdir / "pictures").mkdir(exist_ok=True)
  with style():
    save(curves(results, info), workdir / "pictures" / "rounds.png")


def stage_table(results: Mapping[str, Mapping[str, Any]], console: Console) -> Table:
  """A line for each stage: whose labels it learnt from, how many, how right, what came of it."""
  table = _table(console, "stage", "labelled by", "ratio", "pixels kept", "of them right",
                 "best score", "last mIoU")  # fmt: skip
  for name, result in results.items():
    labels, last = result["labels"], result.get("last") or {}
    cells = [labels["about"]["stage"] if labels else "-"]
    cells += [_percent(labels.get(key)) for key in ("ratio", "kept", "right")]
    table.add_row(
      name, *cells, _percent(result["best"]["score"]), _percent(last.get("miou_present"))
    )
  return table


def class_table(
  results: Mapping[str, Mapping[str, Any]], info: DatasetInfo, console: Console
) -> Table:
  """A line for each class: threshold and share of its pixels kept, in every stage with labels."""
  labelled = {name: result["labels"] for name, result in results.items() if result["labels"]}
  table = _table(console, "class", *(f"{name}: from, kept" for name in labelled))
  for row, name in enumerate(info.class_names if labelled else ()):
    cells = (
      f"{labels['thresholds'][row]:.4f}  {_percent(labels['kept_of_class'][row]):>6}"
      for labels in labelled.values()
    )
    table.add_row(escape(name), *cells)
  return table


def curves(results: Mapping[str, Mapping[str, Any]], info: DatasetInfo) -> Figure:
  """The best score of every round, and beside it the share of pixels kept of each class, a panel
  for each network's rounds."""
  networks = sorted({result["network_number"] for result in results.values()})
  figure = new_figure(7.0 * (1 + len(networks)), 5.0, "")
  boxes = [(0.6 + 7.0 * i, 0.5, 3.9, 3.9) for i in range(1 + len(networks))]
  letter = {number: f"network {'ab'[number]}" for number in networks} if networks[1:] else {0: ""}
  of = {n: [r for r in results.values() if r["network_number"] == n] for n in networks}
  lines = []
  for n, done in of.items():
    scores = [number(result["best"]["score"]) for result in done]
    lines.append(Line(letter[n], np.arange(len(done)), np.asarray(scores), _COLORS[n]))
  is_share = all(np.nanmin(line.values, initial=0) >= 0 for line in lines)  # unlike a loss
  axes = add_panel(figure, boxes[0], "best score" + ", percent" * is_share)
  draw_lines(axes, lines, "no score", share=is_share, over="round")
  for n, box in zip(networks, boxes[1:], strict=True):
    labelled = [result for result in of[n] if result["labels"]]
    kept = [[k or 0.0 for k in result["labels"]["kept_of_class"]] for result in labelled]
    rounds = np.asarray([result["round"] for result in labelled])
    values = np.asarray(kept).reshape(-1, info.num_classes)
    axes = add_panel(figure, box, f"share of each class's pixels kept, percent  {letter[n]}")
    draw_lines(axes, class_lines(rounds, values, info), "no labels", share=True, over="round")
  return figure


def _table(console: Console, *columns: str) -> Table:
  table = empty_table(console)
  for i, column in enumerate(columns):
    table.add_column(column, justify="right" if i else "left")
  return table


def _percent(share: float | None) -> str:
  return percent(math.nan if share is None else share)
