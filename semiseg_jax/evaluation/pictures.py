"""Pictures for people: label maps in their colours, overlays, panels, a legend."""

import functools
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from semiseg_jax.labels import IGNORE

_TILE_HEIGHT = 256  # smaller pictures are magnified to at least this
_FONT_SIZE = 15
_BAND, _GAP, _MARGIN = 26, 6, 6  # pixels: height of a line of text, between tiles, around text
_PAPER, _INK = (255, 255, 255), (32, 32, 32)


def colorize(label: np.ndarray, palette: np.ndarray) -> np.ndarray:
  """Integer labels [...] in 0..255 -> uint8 colours [...,3]; black without a colour (IGNORE).

  palette: uint8 [K,3].
  """
  colours = np.zeros((256, 3), np.uint8)
  colours[: len(palette)] = palette
  colours[IGNORE] = 0
  return colours[label]


def overlay(
  image: np.ndarray, label: np.ndarray, palette: np.ndarray, weight: float = 0.7
) -> np.ndarray:
  """The labels' colours, with this weight, over the image uint8 [H,W,3]."""
  blended = weight * colorize(label, palette) + (1 - weight) * image
  return np.rint(blended).astype(np.uint8)


def heat(confidence: np.ndarray) -> np.ndarray:
  """uint8 [H,W,3]: from dark (0, or NaN) to yellow (1)."""
  levels = np.rint(255 * np.clip(np.nan_to_num(confidence), 0, 1)).astype(np.uint8)
  return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1])


def write_palette_png(path: str | pathlib.Path, label: np.ndarray, palette: np.ndarray) -> None:
  """A PNG whose stored values are the class ids [H,W] and which viewers show in colours."""
  picture = Image.fromarray(np.ascontiguousarray(label, np.uint8), mode="P")
  picture.putpalette(colorize(np.arange(256), palette).tobytes())
  picture.save(path)


def panel(
  image: np.ndarray,
  label: np.ndarray,
  prediction: np.ndarray,
  confidence: np.ndarray,
  palette: np.ndarray,
  class_names: Sequence[str] | None = None,
) -> np.ndarray:
  """uint8 [h,w,3]: image | label | prediction | confidence side by side, captions above.

  image: uint8 [H,W,3]; label, prediction: integer [H,W]; confidence: [H,W] in 0..1, drawn from
  dark (0) to yellow (1). Small pictures are magnified by a whole factor. With class_names, a
  legend of the classes in label or prediction stands below.
  """
  labeled = label != IGNORE
  right = f"{(prediction == label)[labeled].mean():.1%} right" if labeled.any() else "no label"
  tiles = {
    "image": image,
    "label": colorize(label, palette),
    f"prediction, {right}": colorize(prediction, palette),
    f"confidence, mean {np.mean(confidence):.2f}": heat(confidence),
  }
  strip = _side_by_side(tiles)
  if class_names is None:
    return strip
  shown = np.union1d(label, prediction)
  return np.concatenate([strip, legend(palette, class_names, strip.shape[1], shown)])


def legend(
  palette: np.ndarray,
  class_names: Sequence[str],
  width: int,
  shown: Sequence[int] | None = None,
) -> np.ndarray:
  """uint8 [h,width,3]: colour and name of the classes in shown (default all), as many lines as
  they need; an IGNORE among them is named too."""
  ids = range(len(class_names)) if shown is None else sorted(int(i) for i in shown)
  colours = colorize(np.arange(256), palette)
  entries = [(class_names[i], colours[i]) for i in ids if i < len(class_names)]
  entries += [("no label", colours[IGNORE])] if IGNORE in ids else []
  font, swatch = _font(_FONT_SIZE), _BAND - 2 * _MARGIN
  places, left, line = [], _MARGIN, 0
  for name, _ in entries:
    needed = swatch + _MARGIN + int(font.getlength(name)) + 3 * _MARGIN
    if left + needed > width and left > _MARGIN:
      left, line = _MARGIN, line + 1
    places.append((left, line * _BAND))
    left += needed
  canvas = Image.new("RGB", (width, (line + 1) * _BAND), _PAPER)
  draw = ImageDraw.Draw(canvas)
  for (name, colour), (x, y) in zip(entries, places, strict=True):
    box = (x, y + _MARGIN, x + swatch, y + _MARGIN + swatch)
    draw.rectangle(box, fill=tuple(int(c) for c in colour), outline=_INK)
    middle = (x + swatch + _MARGIN, y + _BAND // 2)
    draw.text(middle, name, fill=_INK, font=font, anchor="lm")
  return np.asarray(canvas)


def text_line(text: str, size: int, width: int, ink: tuple[int, int, int] = _INK) -> np.ndarray:
  """uint8 [1.5 size,width,3]: one line in letters of this size, cut off where it is too long."""
  if _font(size).getlength(text) > width:
    while text and _font(size).getlength(f"{text}...") > width:
      text = text[:-1]
    text += "..."
  line = Image.new("RGB", (width, round(1.5 * size)), _PAPER)
  ImageDraw.Draw(line).text((0, line.height // 2), text, ink, _font(size), anchor="lm")
  return np.asarray(line)


def _side_by_side(tiles: dict[str, np.ndarray]) -> np.ndarray:
  """Pictures of one size [H,W,3], magnified where small, under their captions."""
  columns = []
  for caption, tile in tiles.items():
    factor = max(1, -(-_TILE_HEIGHT // len(tile)))
    tile = tile.repeat(factor, 0).repeat(factor, 1)
    if _font(_FONT_SIZE).getlength(caption) > tile.shape[1]:
      caption = caption.partition(",")[0]
    column = np.concatenate([text_line(caption, _FONT_SIZE, tile.shape[1]), tile])
    columns.append(np.pad(column, ((0, 0), (0, _GAP), (0, 0)), constant_values=255))
  return np.concatenate(columns, axis=1)[:, :-_GAP]


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
  return ImageFont.load_default(size)
