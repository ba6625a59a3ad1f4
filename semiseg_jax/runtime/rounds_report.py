"""What people see of a run in rounds: a table of its stages, one of its classes, and curves."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from semiseg_jax.evaluation.pictures import class_curves
from semiseg_jax.input.sources import DatasetInfo
from semiseg_jax.runtime.report import empty_table, percent

_INK = np.array([[32, 32, 32], [200, 60, 40]])  # of the first network's curve and of the second's


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
  Image.fromarray(curves(results, info)).save(workdir / "pictures" / "rounds.png")


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


def curves(results: Mapping[str, Mapping[str, Any]], info: DatasetInfo) -> np.ndarray:
  """uint8 [H,W,3]: the best score of every round, and below it the share of pixels kept of each
  class, a plot for each network's rounds."""
  plots, networks = [], sorted({result["network_number"] for result in results.values()})
  of = lambda number: [r for r in results.values() if r["network_number"] == number]
  scores = np.stack([[r["best"]["score"] for r in of(number)] for number in networks], axis=-1)
  names = [f"network {'ab'[number]}" for number in networks] if len(networks) > 1 else ["score"]
  plots.append(class_curves("best score by round", range(len(scores)), scores, _INK, names))
  for number in networks:
    labelled = [r for r in of(number) if r["labels"]]
    if labelled:
      rounds = [r["round"] for r in labelled]
      kept = [[k or 0.0 for k in r["labels"]["kept_of_class"]] for r in labelled]
      title = "share of each class's pixels kept, by round"
      plots.append(class_curves(title, rounds, kept, info.palette, info.class_names))
  return np.concatenate(plots)


def _table(console: Console, *columns: str) -> Table:
  table = empty_table(console)
  for i, column in enumerate(columns):
    table.add_column(column, justify="right" if i else "left")
  return table


def _percent(share: float | None) -> str:
  return percent(math.nan if share is None else share)
