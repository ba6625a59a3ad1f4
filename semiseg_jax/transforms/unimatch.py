"""UniMatch's geometry: scaled by the longer side, padded, cut, flipped; all of it by Pillow.

Margins are black, at right and bottom, and IGNORE in the label.
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
  """length: pixels along the longer side; row, column: corner of the crop in the padded image."""

  length: int
  row: int
  column: int
  flip: bool


def resized_size(size: Size, length: int) -> Size:
  """With `length` pixels along the longer side, the other rounded half up."""
  longer = max(size)
  height, width = (length if side == longer else int(side * length / longer + 0.5) for side in size)
  return height, width


def augment(record: Record, draws: Draws, crop: Size) -> Record:
  """The record scaled, padded, cut to the crop and flipped."""
  size = resized_size(record["image"].shape[:2], draws.length)
  record = geometry.each(record, geometry.pillow_bilinear, geometry.pillow_nearest, size)
  record = geometry.crop(geometry.fill(record, crop, IGNORE), draws.row, draws.column, crop)
  return geometry.flip(record) if draws.flip else record


@dataclass(frozen=True)
class UniMatch(grain.transforms.RandomMap):
  """Labelled images.

  scales: the smallest and the largest factor of the longer side.
  """

  scales: Interval = (0.5, 2.0)
  crop: Size = (518, 518)

  def draw(self, rng: np.random.Generator, size: Size) -> Draws:
    """For an image of that size."""
    low, high = (int(scale * max(size)) for scale in self.scales)
    length = int(rng.integers(low, high, endpoint=True))
    row, column = geometry.draw_corner(rng, resized_size(size, length), self.crop)
    return Draws(length, row, column, bool(rng.random() < 0.5))

  def random_map(self, record: Record, rng: np.random.Generator) -> Record:
    return augment(record, self.draw(rng, record["image"].shape[:2]), self.crop)


@dataclass(frozen=True)
class UniMatchUnlabeled(UniMatch):
  """Unlabelled images: the label is 0 where the image is and IGNORE in the margins."""

  def random_map(self, record: Record, rng: np.random.Generator) -> Record:
    return super().random_map({**record, "label": np.zeros_like(record["label"])}, rng)
