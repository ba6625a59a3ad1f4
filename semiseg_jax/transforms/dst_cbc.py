"""DST-CBC's and DMT's geometry: resizing in floating point, black margins, a crop, a flip.

Images leave as float32 levels 0..255. Maps may have another size than the image, as pseudo-labels
stored at the crop's size do: they are resized to what the image is resized to, by a nearest rule
that takes pixel floor(i * old / new). "scale" and "published" are the code's versions.
"""

from dataclasses import dataclass
from typing import NamedTuple

import grain
import numpy as np

from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms import geometry
from semiseg_jax.transforms.geometry import Record, Size
from semiseg_jax.values import Interval


class Draws(NamedTuple):
  """size: that the image is resized to; row, column: corner of the crop in it."""

  size: Size
  row: int
  column: int
  flip: bool


def resize(record: Record, size: Size) -> Record:
  """Image (float32 levels) and maps at that size."""
  return geometry.each(record, geometry.linear, geometry.floor_nearest, size)


def resize_crop(record: Record, draws: Draws, crop: Size) -> Record:
  """Resize, pad at right and bottom up to the crop (black; maps IGNORE), cut, flip."""
  record = geometry.fill(resize(record, draws.size), crop, IGNORE)
  record = geometry.crop(record, draws.row, draws.column, crop)
  return geometry.flip(record) if draws.flip else record


def draw_place(rng: np.random.Generator, size: Size, crop: Size, flip: bool) -> Draws:
  """A place for the crop in an image of `size`, and a mirror image half of the time if `flip`."""
  row, column = geometry.draw_corner(rng, size, crop)
  return Draws(size, row, column, flip and bool(rng.random() < 0.5))


@dataclass(frozen=True)
class DstCbc(grain.transforms.RandomMap):
  """One random factor on both sides of the image: the scale version and DMT.

  resize: (height, width) to which every image is brought first (512, 1024 for Cityscapes).
  """

  scale_range: Interval = (0.5, 1.5)
  flip: bool = True
  resize: Size | None = None
  crop: Size = (321, 321)

  def random_map(self, record: Record, rng: np.random.Generator) -> Record:
    if self.resize is not None:
      record = resize(record, self.resize)
    scale = float(rng.uniform(*self.scale_range))
    size = geometry.scaled_size(record["image"].shape, scale)
    return resize_crop(record, draw_place(rng, size, self.crop, self.flip), self.crop)


@dataclass(frozen=True)
class DstCbcPublished(grain.transforms.RandomMap):
  """Random height and width, independent of each other and of the image's: the published version.

  Both are whole numbers from the crop's to `largest` (VOC 505, 505; Cityscapes 513, 1025).
  """

  largest: Size = (505, 505)
  flip: bool = True
  crop: Size = (321, 321)

  def __post_init__(self):
    if any(most < least for most, least in zip(self.largest, self.crop, strict=True)):
      raise ValueError(
        f"largest={self.largest} of a config.data transform is smaller than config.data.crop="
        f"{self.crop}"
      )

  def random_map(self, record: Record, rng: np.random.Generator) -> Record:
    height, width = rng.integers(self.crop, self.largest, endpoint=True)
    size = (int(height), int(width))
    return resize_crop(record, draw_place(rng, size, self.crop, self.flip), self.crop)


@dataclass(frozen=True)
class DstCbcSquash(grain.transforms.RandomMap):
  """Everything resized to the crop's size, nothing random: the option --no-aug."""

  crop: Size = (321, 321)

  def random_map(self, record: Record, rng: np.random.Generator) -> Record:
    del rng
    return resize(record, self.crop)


@dataclass(frozen=True)
class DstCbcEval:
  """Image and label resized to `size` (512, 1024 for Cityscapes; VOC's images are only padded)."""

  size: Size = (512, 1024)

  def __call__(self, record: Record) -> Record:
    return resize(record, self.size)

  def output_size(self, size: Size) -> Size:
    del size
    return self.size
