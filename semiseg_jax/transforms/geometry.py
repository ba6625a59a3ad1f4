"""Geometry of arrays [H,W] and [H,W,3]; the originals round differently, so each has its own.

`each` carries two such functions to a record: one for the image, one for its maps.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from PIL import Image

from semiseg_jax.values import Size

Record = dict[str, np.ndarray]  # "image" [H,W,3], "label" uint8 [H,W], and what stands beside them
Function = Callable[..., np.ndarray]


def each(record: Record, image: Function, label: Function, *args: Any) -> Record:
  """image(array, *args) of the record's image, `label` so of its other maps; numbers stay."""
  functions = {key: label for key, value in record.items() if np.ndim(value) >= 2}
  if "image" in functions:
    functions["image"] = image
  return {**record, **{key: function(record[key], *args) for key, function in functions.items()}}


def scaled_size(size: Size, scale: float) -> Size:
  """Height and width times scale, truncated, at least a pixel."""
  return max(int(size[0] * scale), 1), max(int(size[1] * scale), 1)


def pillow_bilinear(image: np.ndarray, size: Size) -> np.ndarray:
  """uint8 to uint8, antialiased when it shrinks, rounded to 8 bits after each of its two passes."""
  return _pillow(image, size, Image.Resampling.BILINEAR)


def pillow_nearest(label: np.ndarray, size: Size) -> np.ndarray:
  """The pixel under the centre of each new pixel: of two, the second."""
  return _pillow(label, size, Image.Resampling.NEAREST)


def _pillow(array: np.ndarray, size: Size, method: Image.Resampling) -> np.ndarray:
  if array.shape[:2] == tuple(size):
    return array
  return np.asarray(Image.fromarray(array).resize(size[::-1], method))


def linear(image: np.ndarray, size: Size) -> np.ndarray:
  """Half-pixel bilinear without antialiasing, in float32 and not rounded: OpenCV's, and PyTorch's
  with align_corners off."""
  return cv2.resize(image.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def floor_nearest(label: np.ndarray, size: Size) -> np.ndarray:
  """Pixel floor(i * old / new) with a float32 ratio: PyTorch's nearest."""
  rows, columns = (
    np.minimum((np.arange(new, dtype=np.float32) * np.float32(old / new)).astype(np.int64), old - 1)
    for old, new in zip(label.shape, size, strict=False)
  )
  return label[rows[:, None], columns]


def opencv_nearest(label: np.ndarray, size: Size) -> np.ndarray:
  """Pixel floor(i * old / new) with a float64 ratio."""
  return cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST)


def crop(record: Record, row: int, column: int, size: Size) -> Record:
  """The window of that size whose first pixel is (row, column)."""
  window = np.s_[row : row + size[0], column : column + size[1]]
  cut = lambda array: np.ascontiguousarray(array[window])
  return each(record, cut, cut)


def draw_corner(rng: np.random.Generator, size: Size, crop: Size) -> tuple[int, int]:
  """Row and column of a crop, uniform where it fits; 0 along a side that is too short."""
  row, column = (
    int(rng.integers(max(have - want, 0) + 1)) for have, want in zip(size, crop, strict=True)
  )
  return row, column


def flip(record: Record) -> Record:
  """Mirrored from left to right."""
  mirror = lambda array: np.ascontiguousarray(array[:, ::-1])
  return each(record, mirror, mirror)


def reflect_to(image: np.ndarray, size: Size) -> np.ndarray:
  """Right and bottom margins up to size, reflected as often as needed, the edge not repeated."""
  bottom, right = _missing(image, size)
  if not (bottom or right):
    return image
  return np.pad(image, ((0, bottom), (0, right), (0, 0)), "reflect")


def fill_to(array: np.ndarray, size: Size, value: int, around: bool = False) -> np.ndarray:
  """What misses to size as margins of one value, at right and bottom; `around`: as much at left
  and top too, so the array grows by twice that."""
  bottom, right = _missing(array, size)
  if not (bottom or right):
    return array
  margins = ((bottom * around, bottom), (right * around, right), (0, 0))
  return np.pad(array, margins[: array.ndim], constant_values=value)


def fill(record: Record, size: Size, label: int, around: bool = False) -> Record:
  """Margins as of fill_to, black in the image and `label` in the maps."""
  filled = lambda value: lambda array: fill_to(array, size, value, around)
  return each(record, filled(0), filled(label))


def _missing(array: np.ndarray, size: Size) -> tuple[int, int]:
  return max(size[0] - array.shape[0], 0), max(size[1] - array.shape[1], 0)


def rotate(image: np.ndarray, angle: int) -> np.ndarray:
  """By `angle` degrees counter-clockwise about (width / 2, height / 2), on the same canvas.

  Bilinear with black corners, rounded if the image is uint8.
  """
  height, width = image.shape[:2]
  matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
  return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)


def rotate_in_steps(image: np.ndarray, angle: int) -> np.ndarray:
  """As `rotate`, with coordinates in steps of 1/32 pixel: OpenCV 4, whatever version is here."""
  columns, rows = _turned(image.shape[:2], angle, steps=32)
  places = np.stack([columns >> 5, rows >> 5], -1).astype(np.int16)
  between = ((rows & 31) << 5 | (columns & 31)).astype(np.uint16)
  return cv2.remap(image, places, between, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def rotate_label(label: np.ndarray, angle: int, fill: int) -> np.ndarray:
  """As `rotate`, nearest, with corners of `fill`; of ties the pixel that OpenCV 4 takes."""
  places = np.stack(_turned(label.shape, angle, steps=1), -1).astype(np.int16)
  return cv2.remap(
    label, places, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
  )


def _turned(size: Size, angle: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
  """Column and row of the source of every pixel, int32 [H,W], in `steps` per pixel.

  Sums of terms in 1/1024 pixel, each rounded, as OpenCV 4 computes them.
  """
  height, width = size
  turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
  back = cv2.invertAffineTransform(turn)
  bits = (1024 // steps).bit_length() - 1

  def coordinate(of_column: float, of_row: float, offset: float) -> np.ndarray:
    columns = np.rint(of_column * np.arange(width) * 1024).astype(np.int32)
    rows = np.rint((of_row * np.arange(height) + offset) * 1024).astype(np.int32)
    return (rows[:, None] + (1 << bits >> 1) + columns) >> bits

  return coordinate(*back[0]), coordinate(*back[1])


def blur(image: np.ndarray, kernel: int, sigma: float) -> np.ndarray:
  """Gaussian of `kernel` (odd) taps, reflected at the border without repeating the edge."""
  return cv2.GaussianBlur(image, (kernel, kernel), sigma, borderType=cv2.BORDER_REFLECT_101)


def truncated(image: np.ndarray) -> np.ndarray:
  """Levels 0..255 as uint8, without rounding, as the originals' casts."""
  return image.astype(np.uint8)
