"""What happens to a whole image before a network is scored on it, or to every image of a set."""

from dataclasses import dataclass
from typing import Protocol

from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms import geometry
from semiseg_jax.transforms.geometry import Record
from semiseg_jax.values import Side, Size


class EvalTransform(Protocol):
  """Record to record without any draw; `output_size` is the image's (height, width) after it."""

  def __call__(self, record: Record) -> Record: ...

  def output_size(self, size: tuple[int, int]) -> tuple[int, int]: ...


@dataclass(frozen=True)
class Whole:
  """The record as it is."""

  def __call__(self, record: Record) -> Record:
    return record

  def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
    return size


@dataclass(frozen=True)
class ShorterSide:
  """`length` pixels along the shorter side: Pillow's antialiased bilinear, labels nearest."""

  length: Side = 512

  def __call__(self, record: Record) -> Record:
    size = self.output_size(record["image"].shape[:2])
    return geometry.each(record, geometry.pillow_bilinear, geometry.pillow_nearest, size)

  def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
    factor = self.length / min(size)
    return round(size[0] * factor), round(size[1] * factor)


@dataclass(frozen=True)
class Pad:
  """Right and bottom margins up to `size`, black and IGNORE (DST-CBC's VOC: 505, 505).

  Images that are larger stay as they are.
  """

  size: Size = (505, 505)

  def __call__(self, record: Record) -> Record:
    return geometry.fill(record, self.size, IGNORE)

  def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
    return max(size[0], self.size[0]), max(size[1], self.size[1])
