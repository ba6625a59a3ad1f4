"""Geometry of one record on the CPU, exact as the originals: Pillow's resizing, reflected margins.

Everything else (colour, blur, flip) happens on the device. Draws and their application are apart.
"""

from dataclasses import dataclass
from typing import NamedTuple

import grain
import numpy as np
from PIL import Image

from semiseg_jax.input.sources import Record
from semiseg_jax.labels import IGNORE


class Draws(NamedTuple):
  """scale: factor on height and width; row, column: corner of the crop in the scaled image."""

  scale: float
  row: int
  column: int


def draw_scale_crop(
  rng: np.random.Generator,
  size: tuple[int, int],
  scale_range: tuple[float, float],
  crop: tuple[int, int],
) -> Draws:
  """A scale, uniform in the range, and a place for the crop, uniform where it fits."""
  scale = float(rng.uniform(*scale_range))
  height, width = scaled_size(size, scale)
  row = int(rng.integers(max(height - crop[0], 0) + 1))
  column = int(rng.integers(max(width - crop[1], 0) + 1))
  return Draws(scale, row, column)


def scale_crop(
  image: np.ndarray, label: np.ndarray, draws: Draws, crop: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  """Scale, pad at right and bottom up to the crop, cut: uint8 [h,w,3] and [h,w] of the crop."""
  image, label = resize(image, label, scaled_size(label.shape, draws.scale))
  image, label = pad(image, label, crop)
  window = np.s_[draws.row : draws.row + crop[0], draws.column : draws.column + crop[1]]
  return np.ascontiguousarray(image[window]), np.ascontiguousarray(label[window])


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
  return max(int(size[0] * scale), 1), max(int(size[1] * scale), 1)


def resize(
  image: np.ndarray, label: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  """Image bilinear (antialiased when it shrinks), label nearest; untouched if the size fits."""
  if label.shape == tuple(size):
    return image, label
  to = lambda array, method: np.asarray(Image.fromarray(array).resize(size[::-1], method))
  return to(image, Image.Resampling.BILINEAR), to(label, Image.Resampling.NEAREST)


def pad(
  image: np.ndarray, label: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  """Right and bottom margins up to size: the image reflected as often as needed without repeating
  its edge, the label IGNORE."""
  bottom, right = (max(want - have, 0) for want, have in zip(size, label.shape, strict=True))
  if not (bottom or right):
    return image, label
  image = np.pad(image, ((0, bottom), (0, right), (0, 0)), "reflect")
  label = np.pad(label, ((0, bottom), (0, right)), constant_values=IGNORE)
  return image, label


@dataclass(frozen=True)
class ScaleCrop(grain.transforms.RandomMap):
  """A random scale and crop of a record {"image", "label", ...}.

  crop: (height, width), None = the record's own size (then records must agree in size).
  """

  scale_range: tuple[float, float] = (1.0, 1.0)
  crop: tuple[int, int] | None = None

  def random_map(self, record: Record, rng: np.random.Generator) -> Record:
    size = record["label"].shape
    crop = self.crop or size
    draws = draw_scale_crop(rng, size, self.scale_range, crop)
    image, label = scale_crop(record["image"], record["label"], draws, crop)
    return {**record, "image": image, "label": label}
