"""The memory bank's loaders: optional halving with Pillow, black margins, a crop.

Everything else of its augmentation happens on the device.
"""

from dataclasses import dataclass
from typing import NamedTuple

import grain
import numpy as np

from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms import geometry
from semiseg_jax.transforms.geometry import Record, Size


class Draws(NamedTuple):
  """Corner of the crop in the padded image."""

  row: int
  column: int


def half(size: Size) -> Size:
  """Both sides halved, rounded down."""
  return size[0] // 2, size[1] // 2


def halve(record: Record) -> Record:
  """Image (antialiased, 8 bits) and label at half their size; labels keep odd rows and columns."""
  size = half(record["image"].shape)
  return geometry.each(record, geometry.pillow_bilinear, geometry.pillow_nearest, size)


def pad_crop(record: Record, draws: Draws, crop: Size) -> Record:
  """Black margins (label IGNORE) at right and bottom up to the crop, then the crop."""
  return geometry.crop(geometry.fill(record, crop, IGNORE), draws.row, draws.column, crop)


@dataclass(frozen=True)
class MemoryBank(grain.transforms.RandomMap):
  """A random crop, of the image at half its size where `halve` is set (DeepLab v2, Cityscapes)."""

  halve: bool = False
  crop: Size = (512, 512)

  def random_map(self, record: Record, rng: np.random.Generator) -> Record:
    if self.halve:
      record = halve(record)
    draws = Draws(*geometry.draw_corner(rng, record["image"].shape[:2], self.crop))
    return pad_crop(record, draws, self.crop)


@dataclass(frozen=True)
class MemoryBankEval:
  """The image at half its size, the label as it is: the network is scored at full size."""

  def __call__(self, record: Record) -> Record:
    image = record["image"]
    return {**record, "image": geometry.pillow_bilinear(image, half(image.shape))}

  def output_size(self, size: Size) -> Size:
    return half(size)
