"""From what a mask stores to classes."""

from collections.abc import Mapping, Sequence

import numpy as np

from semiseg_jax.input import decode
from semiseg_jax.input.decode import DataError
from semiseg_jax.input.palettes import Color, used_colors
from semiseg_jax.labels import IGNORE


class ClassIds:
  """ids 0..num_classes-1 stay, ignore_index becomes IGNORE, any other is a DataError.

  values: {id: class}, which ids stand for which classes instead. names: of the classes, for hints.
  """

  def __init__(
    self,
    num_classes: int,
    ignore_index: int | None,
    values: Mapping[int, int] | None = None,
    names: Sequence[str] = (),
  ):
    self._values = dict(enumerate(range(num_classes))) if values is None else dict(values)
    self._ignore_index, self._names, self._mapped = ignore_index, names, values is not None
    self._table = np.full(256, -1, np.int16)
    if ignore_index is not None and 0 <= ignore_index < 256:
      self._table[ignore_index] = IGNORE
    for stored, class_id in self._values.items():
      if stored != ignore_index:
        self._table[stored] = class_id

  def class_of(self, stored: int) -> int:
    """-1 for an id that is none."""
    return int(self._table[stored])

  def __call__(self, stored: np.ndarray, where: str) -> np.ndarray:
    """Labels uint8 [H,W] of ids uint8 [H,W]. `where` names the mask in the error."""
    label = self._table[stored]
    if label.min() < 0:
      raise DataError("label range", f"{where}: {self._complaint(np.unique(stored).tolist())}")
    return label.astype(np.uint8)

  def _complaint(self, found: list[int]) -> str:
    unknown = [i for i in found if self._table[i] < 0]
    known = f"0..{len(self._values) - 1}" if not self._mapped else str(sorted(self._values))
    ignored = "" if self._ignore_index is None else f" nor the ignored id {self._ignore_index}"
    text = f"label ids {unknown} are {'neither' if ignored else 'not'} in {known}{ignored}"
    if not self._names:
      return text
    meant = [i for i in found if i != self._ignore_index]
    if len(meant) == len(self._names):
      likely = dict(zip(meant, self._names, strict=True))
    else:
      likely = dict.fromkeys(unknown, "NAME")
    return f"{text}; if they are classes, write to dataset.toml {values_line(likely)}"


def values_line(values: Mapping[int, str]) -> str:
  """The line of dataset.toml by which ids stand for classes."""
  pairs = ", ".join(f'{stored} = "{name}"' for stored, name in values.items())
  return f"values = {{{pairs}}}"


class ClassColors:
  """Colours of a palette uint8 [K,3] become classes, ignore_color IGNORE, any other is a
  DataError."""

  def __init__(self, palette: np.ndarray, ignore_color: Color | None):
    self._class_of: dict[Color, int] = {}
    if ignore_color is not None:
      self._class_of[tuple(ignore_color)] = IGNORE
    for class_id, color in reversed([*enumerate(palette.tolist())]):
      self._class_of[tuple(color)] = class_id  # of classes of one colour the first
    codes = np.asarray([_code(np.asarray(color)) for color in self._class_of])
    order = np.argsort(codes)
    self._codes = codes[order]
    self._classes = np.asarray([*self._class_of.values()], np.uint8)[order]

  def class_of(self, color: Color) -> int:
    """-1 for a colour that is none."""
    return self._class_of.get(color, -1)

  def __call__(self, colors: np.ndarray, where: str) -> np.ndarray:
    """Labels uint8 [H,W] of colours uint8 [H,W,3]."""
    code = _code(colors)
    place = np.searchsorted(self._codes, code).clip(max=len(self._codes) - 1)
    if (unknown := self._codes[place] != code).any():
      color = tuple(colors[unknown][0].tolist())
      raise DataError(
        "unknown colour",
        f"{where}: no class has the colour {color}, {unknown.mean():.2%} of its pixels are of "
        f"none: add it to dataset.toml's palette, or write ignore_color = {[*color]}",
      )
    return self._classes[place]


def _code(colors: np.ndarray) -> np.ndarray:
  """One number for each of [...,3]."""
  red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
  return red << 16 | green << 8 | blue


class MaskReader:
  """From mask files to classes: one for all of a set, as their palettes must not contradict.

  colors: where masks may be drawn in the classes' colours.
  """

  def __init__(self, ids: ClassIds, colors: ClassColors | None = None):
    self._ids, self._colors = ids, colors
    self._seen: dict[int, tuple[Color, str]] = {}  # of ids in palette files

  def __call__(self, encoded: bytes, where: str) -> np.ndarray:
    """Labels uint8 [H,W]; DataError for what is no mask, or not of these classes."""
    return self.of_mask(decode.decode_mask(encoded, where), where)

  def of_mask(self, mask: decode.Mask, where: str) -> np.ndarray:
    """The same of a mask that is decoded. A palette's ids count, unless one of them is shown in the
    colour of another class, and all in different ones: then its colours do."""
    pixels, palette = mask
    if self._colors and pixels.ndim == 3 and _is_opaque(pixels):
      return self._colors(pixels[..., :3], where)
    ids = decode.check_label(pixels, where)
    if palette is not None:
      used = used_colors(ids, palette)
      drawn = [(self._ids.class_of(i), self._class_of_color(color)) for i, color in used.items()]
      others = any(c not in (-1, i) and i != IGNORE for i, c in drawn)
      if others and len(set(used.values())) == len(used):
        return self._colors(_of_every_id(palette)[ids], where)
      if not all(i in (c, IGNORE) for i, c in drawn):
        decode.check_palette(mask, where)
      self._compare(used, where)
    return self._ids(ids, where)

  def _class_of_color(self, color: Color) -> int:
    return self._colors.class_of(color) if self._colors else -1

  def _compare(self, used: Mapping[int, Color], where: str) -> None:
    """DataError for an id whose colour is another in a mask that was read before."""
    for i, color in used.items():
      first, other = self._seen.setdefault(i, (color, where))
      if first != color:
        raise DataError(
          "mask palette",
          f"{where} shows id {i} as {color}, {other} as {first}: a program has renumbered the ids, "
          "so save all masks anew, as grey PNGs",
        )


def _of_every_id(palette: np.ndarray) -> np.ndarray:
  """uint8 [256,3], black where a file's palette ends."""
  return np.pad(palette, ((0, 256 - len(palette)), (0, 0)))


def _is_opaque(pixels: np.ndarray) -> bool:
  """Of colours uint8 [H,W,C]."""
  channels = pixels.shape[-1]
  opaque = channels == 3 or (channels == 4 and pixels[..., 3].min() == 255)
  return opaque and pixels.dtype == np.uint8
