"""How curves are drawn, by matplotlib: panels of lines that are named where they end.

matplotlib takes half a second to import, so that is done where the first figure is made. Nothing
here touches pyplot, whose state and backend are the user's.
"""

from __future__ import annotations

import contextlib
import io
import logging
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from semiseg_jax.files import write_bytes

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

INK, GRID = "#202020", "#e4e4e4"
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf")
MOST_POINTS = 400  # of a line; more are drawn as the means of so many parts, in a band
MOST_MARKERS = 30  # points of a line that are marked
_DOTS, _LETTERS, _LINE = 120, 8, 1.35  # dots an inch, points of a letter, letters of a line
_NAMED = 6  # at each end that are named where there is no room for all
_LONGEST = 26  # letters of a name
_LEADER = {"arrowstyle": "-", "linestyle": ":", "relpos": (0, 0.5), "patchA": None}
_STYLE = {
  "font.size": _LETTERS,
  "axes.titlesize": _LETTERS + 1,
  "axes.edgecolor": "#9a9a9a",
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "grid.color": GRID,
  "grid.linewidth": 0.7,
  "axes.axisbelow": True,
  "text.color": INK,
  "text.parse_math": False,  # a $ in a name is one
  "lines.linewidth": 1.4,
}


class Line(NamedTuple):
  """A curve [n] over steps [n], NaN for a gap.

  faint: it is there for the others' sake, without a name. spread: [n], half of the width of a band
  around it.
  """

  name: str
  steps: np.ndarray
  values: np.ndarray
  color: tuple[float, ...] | str
  faint: bool = False
  spread: np.ndarray | float = 0.0


@contextlib.contextmanager
def style() -> Iterator[None]:
  """matplotlib's own looks with ours over them, whatever the user's are; it warns of nothing."""
  logger = logging.getLogger("matplotlib")
  level = logger.level
  logger.setLevel(logging.ERROR)  # of its caches, and fonts
  try:
    import matplotlib.style

    with warnings.catch_warnings(), matplotlib.style.context(["default", _STYLE]):
      warnings.simplefilter("ignore")  # of letters that the font lacks
      yield
  finally:
    logger.setLevel(level)


def new_figure(width: float, height: float, title: str) -> Figure:
  """In inches, with its title at the left."""
  from matplotlib.figure import Figure

  figure = Figure((width, height), dpi=_DOTS)
  figure.text(0.35 / width, 1 - 0.2 / height, title, size=_LETTERS + 3, va="top")
  return figure


def add_panel(figure: Figure, box: tuple[float, float, float, float], title: str) -> Axes:
  """A panel of the figure; box: left, top, width, height of the axes in inches."""
  width, height = figure.get_size_inches()
  left, top, *size = box
  sides = (left / width, 1 - (top + size[1]) / height, size[0] / width, size[1] / height)
  axes = figure.add_axes(sides)
  axes.set_title(title, loc="left")
  return axes


def save(figure: Figure, path: pathlib.Path) -> None:
  """As a PNG, at once."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png")
  write_bytes(path, buffer.getvalue())


def draw_lines(
  axes: Axes, lines: Sequence[Line], empty: str, *, share: bool = False, over: str = "step"
) -> None:
  """The lines, each named with its last value behind its end; `empty` stands there if none has any.

  share: values are between 0 and 1, drawn in percent. over: what is counted by `steps`. Where there
  is no room for all names, only the highest and the lowest lines are named; the others are faint.
  """
  lines = [line for line in lines if np.isfinite(line.values).any()]
  if not lines:
    axes.text(0.5, 0.5, empty, ha="center", va="center", transform=axes.transAxes, color="#808080")
    axes.set(xticks=[], yticks=[])
    return
  if share:
    lines = [line._replace(values=100 * line.values, spread=100 * line.spread) for line in lines]
  named = sorted((line for line in lines if not line.faint), key=lambda line: -end_of(line)[1])
  if len(named) > room(axes):
    title = f"{axes.get_title('left')}; {2 * _NAMED} of {len(named)} named"
    axes.set_title(title, loc="left")
    named = named[:_NAMED] + named[-_NAMED:]
  names = [line.name for line in named]
  for line in sorted(lines, key=lambda line: line.name in names):
    draw_line(axes, line._replace(faint=line.name not in names))
  steps_axis(axes, max(line.steps[-1] for line in lines), over)
  pooled = np.concatenate([line.values for line in lines])
  if share:
    axes.set_ylim(0, max(1.0, 1.05 * np.nanmax(pooled)))
  elif is_log(pooled):
    log_axis(axes)
  name_ends(axes, named, ".1f" if share else ".3g")


def draw_line(axes: Axes, line: Line) -> None:
  """Its values and its band; of many points the means of parts, in a band over all there is."""
  steps, values = line.steps, line.values
  low, high = values - line.spread, values + line.spread
  if len(values) > MOST_POINTS:
    steps, values, low, high = condensed(steps, values, low, high)
  alpha, width = (0.3, 0.8) if line.faint else (1.0, 1.4)
  if not line.faint and (high > low).any():
    axes.fill_between(steps, low, high, color=line.color, alpha=0.18, linewidth=0)
  is_marked = len(values) <= MOST_MARKERS and not line.faint
  marker = "o" if is_marked or np.isfinite(values).sum() < 2 else ""
  look = {"color": line.color, "alpha": alpha, "linewidth": width, "markersize": 3}
  axes.plot(steps, values, marker=marker, label=line.name, clip_on=False, **look)


def condensed(
  steps: np.ndarray, values: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, ...]:
  """(mean steps, mean values, least low, largest high) [MOST_POINTS] of parts of about the same
  length; NaN for a part without a number."""
  parts = np.array_split(np.arange(len(values)), MOST_POINTS)
  pairs = ((np.mean, steps), (np.nanmean, values), (np.nanmin, low), (np.nanmax, high))
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # of such parts
    return tuple(np.asarray([of(array[part]) for part in parts]) for of, array in pairs)


def is_log(values: np.ndarray) -> bool:
  """Whether a linear axis would press half of the values into its lowest tenth."""
  values = values[np.isfinite(values)]
  return bool(values.min() > 0 and np.median(values) < values.min() + 0.1 * np.ptp(values))


def log_axis(axes: Axes) -> None:
  from matplotlib.ticker import LogLocator, NullFormatter

  axes.set_yscale("log")
  axes.yaxis.set_major_locator(LogLocator(10, (1.0, 2.0, 5.0)))
  axes.yaxis.set_major_formatter("{x:g}")
  axes.yaxis.set_minor_formatter(NullFormatter())


def steps_axis(axes: Axes, last: float, over: str) -> None:
  """0 to the last step, as 500, 20k, 1.5M."""
  from matplotlib.ticker import EngFormatter, MaxNLocator

  axes.set_xlim(0, max(last, 1))
  axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
  axes.xaxis.set_major_formatter(EngFormatter(sep=""))
  axes.set_xlabel(over)


def name_ends(axes: Axes, lines: Sequence[Line], form: str) -> None:
  """Names and last values, of lines in the order of these, at the right of the axes, with a thin
  line from each to where its curve ends."""
  ends = list(map(end_of, lines))
  to_share = axes.transData + axes.transAxes.inverted()
  wanted = [to_share.transform(end)[1] for end in ends]
  places = spread(wanted, _LETTERS * _LINE / points_high(axes))
  for line, end, place in zip(lines, ends, places, strict=True):
    axes.annotate(
      f"{shortened(line.name)}  {end[1]:{form}}".strip(),
      end,
      (1.05, place),
      textcoords="axes fraction",
      va="center",
      annotation_clip=False,
      arrowprops={**_LEADER, "color": line.color},
    )


def end_of(line: Line) -> tuple[float, float]:
  """The step and the value of its last number."""
  last = np.flatnonzero(np.isfinite(line.values))[-1]
  return line.steps[last], line.values[last]


def points_high(axes: Axes) -> float:
  return axes.bbox.height / axes.figure.dpi * 72


def room(axes: Axes) -> int:
  """Names that stand one below the other beside the axes."""
  return int(points_high(axes) / (_LETTERS * _LINE)) + 1


def spread(wanted: Sequence[float], gap: float) -> np.ndarray:
  """The places nearest to the wanted ones, which fall, from 1 down to 0 and `gap` or more apart."""
  from scipy.optimize import isotonic_regression

  steps = gap * np.arange(len(wanted))  # with these added, places that keep apart need only fall
  falling = isotonic_regression(np.asarray(wanted) + steps, increasing=False).x
  return np.clip(falling, steps[-1], 1) - steps


def shortened(name: str) -> str:
  """The middle of a long name left out: runs differ at either end."""
  if len(name) <= _LONGEST:
    return name
  half = (_LONGEST - 1) // 2
  return f"{name[:half]}…{name[-half:]}"


def visible(color: Sequence[int]) -> tuple[float, ...]:
  """A palette's colour 0..255 as matplotlib's, darkened until it can be seen on white."""
  color = np.asarray(color, float) / 255
  luminance = color @ (0.299, 0.587, 0.114)
  return tuple(color * min(1.0, 0.72 / max(luminance, 1e-6)))
