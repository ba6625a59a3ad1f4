"""What the loop reads from: two sources of images and labels, and what their classes are."""

import os
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Record = dict[str, np.ndarray]


@dataclass(frozen=True)
class DatasetInfo:
  """What a dataset says about itself.

  palette: uint8 [K,3], one colour per class. size: (height, width) into which every validation
  image fits.
  """

  name: str
  class_names: tuple[str, ...]
  palette: np.ndarray
  size: tuple[int, int] | None

  @property
  def num_classes(self) -> int:
    return len(self.class_names)


class Source(Protocol):
  """Random access to {"image": uint8 [H,W,3], "label": uint8 [H,W]}, readable from many threads.

  A record without a mask has a label of IGNORE alone; `labeled` bool [n] says which have one.
  `ids` names the records in listing order; `sizes` are the (height, width) that occur. Sources
  pickle cheaply: files are opened on first use.
  """

  ids: Sequence[str]
  labeled: np.ndarray
  sizes: Sequence[tuple[int, int]]

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Record: ...


@dataclass(frozen=True)
class Dataset:
  """extra: further images without masks, where the dataset has them."""

  info: DatasetInfo
  train: Source
  val: Source
  extra: Source | None = None


class Subset:
  """Rows `indices` of a source, in that order."""

  def __init__(self, source: Source, indices: Iterable[int]):
    self.source = source
    self.indices = np.asarray(list(indices), np.int64)
    self.ids = [source.ids[i] for i in self.indices]
    self.labeled = np.asarray(source.labeled)[self.indices]
    self.sizes = source.sizes

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> Record:
    return self.source[int(self.indices[index])]


class Joined:
  """The records of one source, then those of another. ValueError if they share an id."""

  def __init__(self, first: Source, second: Source):
    self.first, self.second = first, second
    self.ids = [*first.ids, *second.ids]
    self.labeled = np.concatenate([first.labeled, second.labeled])
    self.sizes = sorted({*first.sizes, *second.sizes})
    if shared := set(first.ids) & set(second.ids):
      raise ValueError(f"{len(shared)} ids are in both sources to be joined: {min(shared)!r}")

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, index: int) -> Record:
    offset = len(self.first)
    return self.first[index] if index < offset else self.second[index - offset]


def largest_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int] | None:
  """(largest height, largest width), None of nothing."""
  heights_widths = tuple(zip(*sizes, strict=True))
  return (max(heights_widths[0]), max(heights_widths[1])) if heights_widths else None


def default_data_dir() -> pathlib.Path:
  """Where prepared datasets lie unless told otherwise: $SEMISEG_DATA, else ~/semiseg_data."""
  return pathlib.Path(os.environ.get("SEMISEG_DATA") or pathlib.Path.home() / "semiseg_data")


def open_dataset(
  name: str,
  *,
  data_dir: str | os.PathLike | None = None,
  root: str | os.PathLike | None = None,
  variant: str | None = None,
  class_names: Sequence[str] | None = None,
  ignore_index: int | None = None,
  palette: Sequence[Sequence[int]] | None = None,
  resize: int | None = None,
) -> Dataset:
  """Opens "folder" (images and masks under root), or the prepared dataset `name` under data_dir.

  class_names, ignore_index and palette override what a folder says about itself; a prepared
  dataset needs none of them. resize: length in pixels that the shorter side of every image is
  brought to, None = native.

  Raises FileNotFoundError if there is nothing to open and ValueError if what is there is unusable.
  """
  from semiseg_jax.input import folder, prepared, transforms

  if name == "folder":
    if not root:
      raise ValueError('dataset "folder" needs root: the directory that holds images and masks')
    dataset = folder.open_folder(
      root, class_names=class_names, ignore_index=ignore_index, palette=palette
    )
  else:
    dataset = prepared.open_prepared(name, data_dir or default_data_dir(), variant)
  if resize is None:
    return dataset
  return transforms.resized_dataset(dataset, resize)
