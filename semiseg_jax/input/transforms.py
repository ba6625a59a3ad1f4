"""Geometry of one record on the CPU, exact as the originals: Pillow's resizing, reflected margins.

Everything else (colour, blur, flip) happens on the device. Draws and their application are apart.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import grain
import numpy as np
from PIL import Image

from semiseg_jax.input.sources import Dataset, Record, Source, largest_size
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


class Resized:
  """A source whose images have `shorter_side` pixels along their shorter side."""

  def __init__(self, source: Source, shorter_side: int):
    self.source, self.shorter_side = source, shorter_side
    self.ids, self.labeled = source.ids, source.labeled
    self.sizes = sorted({resized_size(size, shorter_side) for size in source.sizes})

  def __len__(self) -> int:
    return len(self.source)

  def fingerprint(self) -> str:
    return f"{self.source.fingerprint()} {self.shorter_side}"

  def __getitem__(self, index: int) -> Record:
    record = self.source[index]
    size = resized_size(record["label"].shape, self.shorter_side)
    image, label = resize(record["image"], record["label"], size)
    return {**record, "image": image, "label": label}


def resized_size(size: tuple[int, int], shorter_side: int) -> tuple[int, int]:
  factor = shorter_side / min(size)
  return round(size[0] * factor), round(size[1] * factor)


def resized_dataset(dataset: Dataset, shorter_side: int) -> Dataset:
  """Both splits resized."""
  train, val = Resized(dataset.train, shorter_side), Resized(dataset.val, shorter_side)
  return Dataset(replace(dataset.info, size=largest_size(val.sizes)), train, val)
