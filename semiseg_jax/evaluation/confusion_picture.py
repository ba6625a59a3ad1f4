"""A confusion matrix as a picture, for people."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from semiseg_jax.evaluation.pictures import text_line

_CELLS = 900  # pixels that all rows take together, where their sides allow it
_SMALLEST, _LARGEST, _WRITTEN = 12, 60, 28  # side of a cell; the least that has a number in it
_NAMES, _LETTERS, _GAP = 150, 14, 6  # width of a name, its size at most, pixels between parts
_PAPER, _DEEP = np.array([255, 255, 255]), np.array([8, 64, 129])  # a share of 0, and of 1
_GRID, _ABSENT, _LIGHT, _DARK = 232, 214, (255, 255, 255), (32, 32, 32)
_TITLE = "percent of each class's pixels; rows: truth, columns: masks; grey: class without a pixel"


def confusion_picture(
  confusion: np.ndarray, truth: np.ndarray, palette: np.ndarray, class_names: Sequence[str]
) -> np.ndarray:
  """uint8 [h,w,3]: the share of each class's pixels in each mask, darker for more.

  confusion: counts [K,K+1] of `count_masks`, whose last column is shown if it holds anything.
  truth: pixels of each class, [K]. palette: uint8 [K,3], a swatch beside each name.
  """
  names = [*class_names, "no mask"]
  if not confusion[:, -1].any():
    confusion, names = confusion[:, :-1], names[:-1]
  side = int(np.clip(_CELLS // len(confusion), _SMALLEST, _LARGEST))
  swatches = [*np.asarray(palette), _PAPER]
  labels = [_name(*pair, side) for pair in zip(names, swatches, strict=False)]
  rows = np.concatenate(labels[: len(confusion)])
  columns = np.concatenate([np.rot90(label) for label in labels], axis=1)
  shares = confusion / np.maximum(truth, 1)[:, None]
  cells = _written(_cells(shares, truth == 0, side), shares, side)
  above = np.full((len(columns), rows.shape[1], 3), 255, np.uint8)
  picture = np.block([[[above], [columns]], [[rows], [cells]]])
  missing = max(0, 640 - picture.shape[1])  # for the title
  picture = np.pad(picture, ((0, 0), (0, missing), (0, 0)), constant_values=255)
  title = text_line(_TITLE, _LETTERS, picture.shape[1])
  frame = ((_GAP, _GAP), (_GAP, _GAP), (0, 0))
  return np.pad(np.concatenate([title, picture]), frame, constant_values=255)


def _name(name: str, color: np.ndarray, side: int) -> np.ndarray:
  """uint8 [side,_NAMES,3]: a name, and its swatch at the right."""
  size = min(_LETTERS, int(side / 1.5))
  swatch = size
  canvas = np.full((side, _NAMES, 3), 255, np.uint8)
  line = text_line(name, size, _NAMES - swatch - 3 * _GAP)
  top = (side - len(line)) // 2
  canvas[top : top + len(line), _GAP : _GAP + line.shape[1]] = line
  top = (side - swatch) // 2
  canvas[top : top + swatch, -_GAP - swatch : -_GAP] = color
  return canvas


def _cells(shares: np.ndarray, absent: np.ndarray, side: int) -> np.ndarray:
  """uint8 [K*side,C*side,3], a square for each share, with lines between them."""
  colors = _PAPER + (_DEEP - _PAPER) * shares[..., None] ** 0.7  # small shares can be seen
  colors[absent] = _ABSENT
  cells = np.rint(colors).astype(np.uint8).repeat(side, 0).repeat(side, 1)
  cells[::side] = cells[:, ::side] = _GRID
  return cells


def _written(cells: np.ndarray, shares: np.ndarray, side: int) -> np.ndarray:
  """The same with the shares in percent, where there is room and something to say."""
  if side < _WRITTEN:
    return cells
  canvas = Image.fromarray(cells)
  draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(min(_LETTERS, side // 3))
  for row, column in np.argwhere(shares >= 0.005):
    place = (column * side + side // 2, row * side + side // 2)
    share = shares[row, column]
    ink = _LIGHT if share > 0.4 else _DARK
    draw.text(place, f"{100 * share:.0f}", fill=ink, font=font, anchor="mm")
  return np.asarray(canvas)
