"""Runs side by side as a picture: mIoU and loss over the steps, classes that differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from semiseg_jax.runtime.comparison import Group, class_differences, ends_of
from semiseg_jax.runtime.history import series
from semiseg_jax.runtime.past_run import SCORE, PastRun
from semiseg_jax.runtime.plots import (
  COLORS,
  Line,
  add_panel,
  draw_lines,
  new_figure,
  shortened,
)

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

_HEIGHT = 4.6  # inches of a panel


def comparison_figure(groups: Sequence[Group]) -> Figure:
  """A line for each run, in one colour in all panels; of a group its mean, in a band of a standard
  deviation, over its runs' own lines. Of two groups also how much their classes differ."""
  colors = group_colors(len(groups))
  rows = ends_of(class_differences(groups)) if len(groups) == 2 else []
  figure = new_figure(13.7 + 5.4 * bool(rows), _HEIGHT + 1.2, "")
  lines = [line for pair in zip(groups, colors, strict=True) for line in group_lines(*pair, SCORE)]
  band = "; bands: standard deviation" if any(len(group.runs) > 1 for group in groups) else ""
  axes = add_panel(figure, (0.6, 0.5, 3.9, _HEIGHT), f"mIoU, percent{band}")
  draw_lines(axes, lines, "no evaluation yet", share=True)
  lines = [line for pair in zip(groups, colors, strict=True) for line in group_lines(*pair, "loss")]
  axes = add_panel(figure, (7.4, 0.5, 3.9, _HEIGHT), f"loss in training{band}")
  draw_lines(axes, lines, "nothing logged yet")
  if rows:
    title = "difference in IoU, percent, at the best mIoU"
    draw_differences(add_panel(figure, (15.7, 0.5, 3.0, _HEIGHT), title), rows, groups, colors)
  return figure


def group_colors(count: int) -> list:
  """One for each group, so different that they can be told apart where that is possible."""
  if count <= len(COLORS):
    return list(COLORS[:count])
  import matplotlib

  return list(matplotlib.colormaps["turbo"](np.linspace(0.03, 0.97, count)))


def group_lines(group: Group, color: str, name: str) -> list[Line]:
  """Of a single run its line; of several faint ones, and their mean where all have values.

  Between its steps a run is read off its line. Runs that share no stretch keep lines of their own.
  """
  own = [Line(run.name, *of_run(run, name), color) for run in group.runs]
  found = [line for line in own if len(line.steps)]
  if len(found) < 2:
    return [line._replace(name=group.name) for line in found]
  steps = np.unique(np.concatenate([line.steps for line in found]))
  begin, end = max(line.steps[0] for line in found), min(line.steps[-1] for line in found)
  steps = steps[(begin <= steps) & (steps <= end)]
  if not len(steps):
    return found
  values = np.asarray([np.interp(steps, line.steps, line.values) for line in found])
  faint = [line._replace(faint=True) for line in found]
  return [*faint, Line(group.name, steps, values.mean(0), color, spread=values.std(0, ddof=1))]


def of_run(run: PastRun, name: str) -> tuple[np.ndarray, np.ndarray]:
  rows = run.history.evaluations if name == SCORE else run.history.train
  return series(rows, name)


def draw_differences(
  axes: Axes, rows: Sequence[tuple[str, float, float]], groups: Sequence[Group], colors: Sequence
) -> None:
  """A bar for each class to the right where the second group is better, in its colour."""
  gains = np.asarray([100 * (second - first) for _, first, second in rows])
  places = np.arange(len(rows))
  axes.barh(places, gains, color=[colors[int(gain > 0)] for gain in gains], height=0.7)
  axes.set_yticks(places, [shortened(name) for name, *_ in rows])
  axes.axvline(0, color="#9a9a9a", linewidth=0.8)
  axes.grid(visible=False, axis="y")
  axes.invert_yaxis()
  axes.locator_params(axis="x", nbins=5)
  axes.set_xlabel(
    f"left: {shortened(groups[0].name)} is better, right: {shortened(groups[1].name)}"
  )
