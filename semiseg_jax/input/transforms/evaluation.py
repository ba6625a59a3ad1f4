"""What happens to a whole image before a network is scored on it, or to every image of a set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from semiseg_jax.input.sources import Dataset, Record, Source, largest_size
from semiseg_jax.input.transforms.scale_crop import resize


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

  length: int

  def __call__(self, record: Record) -> Record:
    size = self.output_size(record["label"].shape)
    image, label = resize(record["image"], record["label"], size)
    return {**record, "image": image, "label": label}

  def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
    factor = self.length / min(size)
    return round(size[0] * factor), round(size[1] * factor)


class Transformed:
  """A source with a transform of `make_eval_transform` on every record."""

  def __init__(self, source: Source, transform: EvalTransform):
    self.source, self.transform = source, transform
    self.ids, self.labeled = source.ids, source.labeled
    self.sizes: Sequence = sorted({transform.output_size(size) for size in source.sizes})

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Record:
    return self.transform(self.source[index])

  def fingerprint(self) -> str:
    return f"{self.source.fingerprint()} {self.transform}"


def resized_dataset(dataset: Dataset, shorter_side: int) -> Dataset:
  """Both splits with `shorter_side` pixels along their images' shorter sides."""
  resized = ShorterSide(shorter_side)
  train, val = Transformed(dataset.train, resized), Transformed(dataset.val, resized)
  return replace(
    dataset, info=replace(dataset.info, size=largest_size(val.sizes)), train=train, val=val
  )
