"""ReCo's geometry: a random scale with Pillow, margins by reflection, a crop.

Colour, blur and flip happen on the device.
"""

from dataclasses import dataclass
from typing import NamedTuple

import grain
import numpy as np

from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms import geometry
from semiseg_jax.transforms.geometry import Record
from semiseg_jax.values import Interval, Size


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
  return Draws(scale, *geometry.draw_corner(rng, geometry.scaled_size(size, scale), crop))


def scale_crop(record: Record, draws: Draws, crop: tuple[int, int]) -> Record:
  """Scale, pad at right and bottom up to the crop, cut: uint8 [h,w,3] and [h,w] of the crop.

  Reflected margins are IGNORE in the label.
  """
  size = geometry.scaled_size(record["image"].shape, draws.scale)
  record = geometry.each(
    record,
    lambda image: geometry.reflect_to(geometry.pillow_bilinear(image, size), crop),
    lambda label: geometry.fill_to(geometry.pillow_nearest(label, size), crop, IGNORE),
  )
  return geometry.crop(record, draws.row, draws.column, crop)


@dataclass(frozen=True)
class ScaleCrop(grain.transforms.RandomMap):
  """A random scale and crop of a record {"image", "label", ...}.

  crop: (height, width), None = the record's own size (then records must agree in size).
  """

  scale_range: Interval = (1.0, 1.0)
  crop: Size | None = None

  def random_map(self, record: Record, rng: np.random.Generator) -> Record:
    size = record["label"].shape
    crop = self.crop or size
    return scale_crop(record, draw_scale_crop(rng, size, self.scale_range, crop), crop)
