"""curves.png: what a run has logged, over its steps; and pictures of a value for each class."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from semiseg_jax.input.sources import DatasetInfo
from semiseg_jax.paths import printable
from semiseg_jax.runtime.history import (
  METRICS,
  History,
  Row,
  read_history,
  series,
  series_of_classes,
)
from semiseg_jax.runtime.plots import (
  COLORS,
  INK,
  Line,
  add_panel,
  draw_lines,
  new_figure,
  save,
  style,
  visible,
)

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

CURVES = "curves.png"


def draw_run(workdir: pathlib.Path, info: DatasetInfo, of_classes: Sequence[str]) -> None:
  """Draws workdir/curves.png from its metrics.jsonl.

  of_classes: what was logged as a list of a value for each class, in pictures/NAME.png each.
  """
  history = read_history(workdir / METRICS)
  with style():
    save(run_figure(history, info, printable(workdir.resolve().name)), workdir / CURVES)
    for name in of_classes:
      (workdir / "pictures").mkdir(exist_ok=True)
      figure = class_figure(name, *series_of_classes(history.train, name, info.class_names), info)
      save(figure, workdir / "pictures" / f"{name}.png")


def run_figure(history: History, info: DatasetInfo, name: str) -> Figure:
  """Losses, learning rate and mIoU one below the other, beside them the IoU of every class."""
  figure = new_figure(13.4, 7.6, f"{name}  ({info.name})")
  train, evaluations = history.train, history.evaluations
  boxes = [(0.6, top, 3.9, height) for top, height in ((0.75, 2.6), (3.95, 0.95), (5.5, 1.6))]
  losses, rate, scores = zip(boxes, ("loss", "learning rate", "mIoU, percent"), strict=True)
  lines = _lines(train, _losses(train)) + _validation_loss(evaluations)
  draw_lines(add_panel(figure, *losses), lines, "nothing logged yet")
  lines = _lines(train, ["learning_rate"])
  draw_lines(add_panel(figure, *rate), [line._replace(name="") for line in lines], "not logged")
  axes = add_panel(figure, *scores)
  lines = _lines(evaluations, _mean_scores(evaluations))
  draw_lines(axes, lines, "no evaluation yet", share=True)
  for line in lines[:1]:
    mark_best(axes, line)
  axes = add_panel(figure, (7.4, 0.75, 3.6, 6.35), "IoU of each class, percent")
  lines = class_lines(*series_of_classes(evaluations, "iou", info.class_names), info)
  draw_lines(axes, lines, "no evaluation yet", share=True)
  return figure


def class_figure(title: str, steps: np.ndarray, values: np.ndarray, info: DatasetInfo) -> Figure:
  """A line for each class over the steps [n]; values: [n,K] between 0 and 1."""
  figure = new_figure(7.6, 4.8, "")
  axes = add_panel(figure, (0.6, 0.4, 4.6, 3.9), f"{title} of each class, percent")
  draw_lines(axes, class_lines(steps, values, info), "not logged", share=True)
  return figure


def class_lines(steps: np.ndarray, values: np.ndarray, info: DatasetInfo) -> list[Line]:
  """The classes in the colours of the palette; values: [n,K]."""
  classes = zip(info.class_names, values.T, map(visible, info.palette), strict=True)
  return [Line(name, steps, of_class, color) for name, of_class, color in classes]


def mark_best(axes: Axes, line: Line) -> None:
  """A ring and the value where a line of shares is highest, drawn in percent."""
  if not np.isfinite(line.values).any():
    return
  best = int(np.nanargmax(line.values))
  point = (line.steps[best], 100 * line.values[best])
  axes.plot(*point, "o", color=line.color, markerfacecolor="white", clip_on=False, zorder=3)
  text = f"best {point[1]:.2f} at step {point[0]:,.0f}"
  axes.text(0.98, 0.06, text, ha="right", transform=axes.transAxes)


def _lines(rows: Sequence[Row], names: Sequence[str]) -> list[Line]:
  colors = (COLORS[i % len(COLORS)] for i in range(len(names)))
  return [
    Line(_plain(name), *series(rows, name), color)
    for name, color in zip(names, colors, strict=True)
  ]


def _plain(name: str) -> str:
  """A logged value's name for people."""
  return name.replace("miou_present", "mIoU").replace("_", " ")


def _validation_loss(evaluations: Sequence[Row]) -> list[Line]:
  return [Line("validation", *series(evaluations, "loss"), INK)]


def _losses(rows: Sequence[Row]) -> list[str]:
  """The total first."""
  names = dict.fromkeys(name for row in rows for name in row if name.endswith("loss"))
  return sorted(names, key=lambda name: name != "loss")


def _mean_scores(rows: Sequence[Row]) -> list[str]:
  """The mIoU, and whatever of it was logged of other networks."""
  others = dict.fromkeys(name for row in rows for name in row if name.endswith("_miou_present"))
  return ["miou_present", *others]
