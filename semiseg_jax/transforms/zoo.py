"""The segmentation zoo's (and RankSEG's) augmentation: scale, rotation, crop, flip, blur in OpenCV.

Images are float32 levels until the end and then truncated to uint8. Margins and corners are black,
and class 0 in the label, as in the original; `fill` changes that.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import grain
import numpy as np

from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms import geometry
from semiseg_jax.transforms.geometry import Record, Size
from semiseg_jax.values import Side

_ROTATION = 10  # degrees, to either side


class Draws(NamedTuple):
  """size: after scaling; angle: degrees; row, column: corner of the crop in the padded image;
  sigma: of the blur, in pixels, 0 = none."""

  size: Size
  angle: int
  row: int
  column: int
  flip: bool
  sigma: float


def longer_side(size: Size, length: int) -> Size:
  """The size with `length` pixels along the longer side."""
  height, width = size
  if height > width:
    return length, int(length * width / height + 0.5)
  return int(length * height / width + 0.5), length


def augment(record: Record, draws: Draws, crop: Size | None, fill: int) -> Record:
  """The record after scaling, rotation, padding, crop, flip and blur; the image float32 levels.

  crop: None = no padding and no crop. fill: label of margins and corners.
  """
  record = {**record, "image": record["image"].astype(np.float32)}
  if draws.size != record["image"].shape[:2]:
    record = geometry.each(record, geometry.linear, geometry.opencv_nearest, draws.size)
  if draws.angle:
    record = geometry.each(
      record,
      lambda image: geometry.rotate(image, draws.angle),
      lambda label: geometry.rotate_label(label, draws.angle, fill),
    )
  if crop is not None:
    record = geometry.crop(geometry.fill(record, crop, fill), draws.row, draws.column, crop)
  if draws.flip:
    record = geometry.flip(record)
  kernel = int(3.3 * draws.sigma) | 1  # made odd: 1 or 3 taps
  return {**record, "image": geometry.blur(record["image"], kernel, draws.sigma)}


@dataclass(frozen=True)
class Zoo(grain.transforms.RandomMap):
  """The training augmentation.

  base_size: pixels along the longer side, times a random factor in [0.5, 2] where `scale` is set;
  None = images keep their size, whatever `scale` says. fill: label of margins and corners, 0 in
  the original, 255 to ignore them. blur: with a random width below one pixel. crop: None = none
  (then records must agree in size).
  """

  base_size: Side | None = None
  scale: bool = True
  rotate: bool = True
  flip: bool = True
  blur: bool = False
  fill: Literal[0, IGNORE] = 0
  crop: Size | None = None

  def draw(self, rng: np.random.Generator, size: Size) -> Draws:
    """For an image of that size."""
    if self.base_size is not None:
      low, high = (0.5, 2.0) if self.scale else (1.0, 1.0)
      ends = int(low * self.base_size), int(high * self.base_size)
      size = longer_side(size, int(rng.integers(*ends, endpoint=True)))
    angle = int(rng.integers(-_ROTATION, _ROTATION, endpoint=True)) if self.rotate else 0
    row, column = geometry.draw_corner(rng, size, self.crop or size)
    flip = self.flip and bool(rng.random() > 0.5)
    return Draws(size, angle, row, column, flip, float(rng.random()) if self.blur else 0.0)

  def random_map(self, record: Record, rng: np.random.Generator) -> Record:
    draws = self.draw(rng, record["image"].shape[:2])
    record = augment(record, draws, self.crop, self.fill)
    return {**record, "image": geometry.truncated(record["image"])}


@dataclass(frozen=True)
class ZooEval:
  """`size` pixels along the shorter side, then the square in the middle of that side length."""

  size: Side = 480

  def __call__(self, record: Record) -> Record:
    record = centre_crop(record, self.size)
    return {**record, "image": geometry.truncated(record["image"])}

  def output_size(self, size: Size) -> Size:
    del size
    return self.size, self.size


def centre_crop(record: Record, length: int) -> Record:
  """What ZooEval does, before the image's float32 levels are truncated."""
  height, width = record["image"].shape[:2]
  if height < width:
    size = length, int(length * width / height)
  else:
    size = int(length * height / width), length
  record = geometry.each(record, geometry.linear, geometry.pillow_nearest, size)
  row, column = (size[0] - length) // 2, (size[1] - length) // 2
  return geometry.crop(record, row, column, (length, length))
