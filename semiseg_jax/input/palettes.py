"""Colours of classes, and what the palettes of mask files give away.

A program that saves a mask by its colours numbers them anew, in each file from 0: the ids in such a
file are not those that were meant.
"""

import itertools

import numpy as np

_DARK = 40  # greys below it look alike: nobody chose them as colours of classes
_VOC = 21  # classes
_BORDER = 255  # the id of no class, whatever its colour
_SAVE = "so a program has renumbered the ids: save them as a grey PNG"
_MEANT = "or, if they are meant, write this palette to dataset.toml"
Color = tuple[int, int, int]


def make_palette(num_classes: int) -> np.ndarray:
  """Distinct colours for any number of classes, uint8 [K,3]: the bits of the id spread over RGB."""
  bits = np.arange(1, num_classes + 1)[:, None] >> np.arange(24) & 1
  return np.packbits(bits.reshape(-1, 8, 3), axis=1)[:, 0]


def voc_palette() -> np.ndarray:
  """uint8 [256,3]: black, and behind it the colours of `make_palette`."""
  return np.concatenate([np.zeros((1, 3), np.uint8), make_palette(255)])


def used_colors(ids: np.ndarray, palette: np.ndarray) -> dict[int, Color]:
  """{id: colour} of the ids uint8 [H,W] that occur, out of a file's palette uint8 [n,3]."""
  used = np.flatnonzero(np.bincount(ids.reshape(-1), minlength=256))
  return {int(i): tuple(palette[i].tolist()) for i in used if i < len(palette)}


def renumbered(ids: np.ndarray, palette: np.ndarray) -> str:
  """What gives away that a file does not hold the ids that were meant; "" where nothing does."""
  colors = used_colors(ids, palette)
  colors.pop(_BORDER, None)
  if is_grey_ids(colors):
    i, color = next((i, color) for i, color in colors.items() if i != color[0])
    return f"its palette shows id {i} as the grey {color[0]}, {_SAVE}"
  if is_voc_elsewhere(colors, palette):
    i, color = next((i, color) for i, color in colors.items() if _PLACES[color] != i)
    own = f"the colour of Pascal VOC's class {_PLACES[color]}"
    return f"its palette shows id {i} as {color}, {own}, {_SAVE}, {_MEANT}"
  if is_quantised([*colors.values()], len(palette)):
    shown = ", ".join(map(str, [*colors.values()][:3]))
    sorted_ = f"this mask's colours alone, the brightest first ({shown})"
    return f"its palette holds {sorted_}, {_SAVE}, {_MEANT}"
  return ""


def is_grey_ids(colors: dict[int, Color]) -> bool:
  """Whether the colours are ids drawn as greys, and not at their own places."""
  greys = [color[0] for color in colors.values() if len(set(color)) == 1 and color[0] < _DARK]
  return len(set(greys)) == len(colors) and greys != [*colors]


def is_voc_elsewhere(colors: dict[int, Color], palette: np.ndarray) -> bool:
  """Whether a palette has colours of Pascal VOC alone, and those that are used stand neither at its
  places nor at those of `make_palette`."""
  if not _PLACES.keys() >= {*map(tuple, palette.tolist())}:
    return False
  folder = make_palette(256).tolist()
  ours = all(folder[i] == [*color] for i, color in colors.items())
  return not ours and any(_PLACES[color] != i for i, color in colors.items())


def is_quantised(colors: list[Color], size: int) -> bool:
  """Whether a palette of this size has no further colours, the brightest first and black at the
  end, or a single one that is not black: so programs list them that go by colours."""
  brightness = [np.dot(color, (0.299, 0.587, 0.114)) for color in colors]
  falls = all(a > b for a, b in itertools.pairwise(brightness))
  return 0 < size == len(colors) and falls and any(colors[-1]) == (size == 1)


_PLACES = {tuple(color): i for i, color in enumerate(voc_palette()[:_VOC].tolist())}
