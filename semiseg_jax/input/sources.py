"""Sources of images and labels, and what their classes are."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from semiseg_jax.transforms.evaluation import EvalTransform
from semiseg_jax.transforms.geometry import Record


@dataclass(frozen=True)
class DatasetInfo:
  """What a dataset says about itself.

  palette: uint8 [K,3], one colour per class. size: (height, width) into which every validation
  image fits. ignore_index: the id that a folder's masks store for no label, where all others are
  those of the classes.
  """

  name: str
  class_names: tuple[str, ...]
  palette: np.ndarray
  size: tuple[int, int] | None
  ignore_index: int | None = None

  @property
  def num_classes(self) -> int:
    return len(self.class_names)


class Source:
  """Random access to {"image": uint8 [H,W,3], "label": uint8 [H,W]}, readable from many threads.

  A record without a mask has a label of IGNORE alone; `labeled` bool [n] says which have one.
  `ids` names the records in listing order; `sizes` are the (height, width) that occur. Sources
  pickle cheaply: files are opened on first use. counts: int64 [n,K], pixels per class of every
  record, where they are known without reading. masks: how what a mask stores becomes a class, where
  that is the user's choice.
  """

  ids: Sequence[str]
  labeled: np.ndarray
  sizes: Sequence[tuple[int, int]]
  counts: np.ndarray | None = None
  masks: str = ""

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, index: int) -> Record:
    raise NotImplementedError

  def read_label(self, index: int) -> np.ndarray:
    """The label alone, uint8 [H,W], of a record that has one."""
    return self[index]["label"]

  def fingerprint(self) -> str | None:
    """A text that changes when any label does; None if that is not known."""
    return None

  def lists(self) -> list[str]:
    """Names of the published subsets, such as "dst_cbc/30_0": what ids_of takes."""
    return []

  def ids_of(self, name: str) -> list[str]:
    """The ids of a published subset, in the order in which it was published."""
    raise KeyError(name)


@dataclass(frozen=True)
class Dataset:
  """Where a dataset has them, extra: further images without masks; test: a third set with them."""

  info: DatasetInfo
  train: Source
  val: Source
  extra: Source | None = None
  test: Source | None = None


class Wrapped(Source):
  """The records of another source, changed or chosen from in some way."""

  def __init__(self, source: Source):
    self.source = source
    self.ids, self.labeled, self.sizes = source.ids, source.labeled, source.sizes
    self.masks = source.masks

  def lists(self) -> list[str]:
    return self.source.lists()

  def ids_of(self, name: str) -> list[str]:
    return self.source.ids_of(name)


class Transformed(Wrapped):
  """A source with an evaluation transform on every record."""

  def __init__(self, source: Source, transform: EvalTransform):
    super().__init__(source)
    self.transform = transform
    self.sizes = sorted({transform.output_size(size) for size in source.sizes})

  def __getitem__(self, index: int) -> Record:
    return self.transform(self.source[index])

  def fingerprint(self) -> str | None:
    inner = self.source.fingerprint()
    return inner and f"{inner} {self.transform}"


class Subset(Wrapped):
  """Rows `indices` of a source, in that order."""

  def __init__(self, source: Source, indices: Iterable[int]):
    super().__init__(source)
    self.indices = np.asarray(list(indices), np.int64)
    self.ids = [source.ids[i] for i in self.indices]
    self.labeled = np.asarray(source.labeled)[self.indices]

  def __getitem__(self, index: int) -> Record:
    return self.source[int(self.indices[index])]

  def read_label(self, index: int) -> np.ndarray:
    return self.source.read_label(int(self.indices[index]))

  @property
  def counts(self) -> np.ndarray | None:
    counts = self.source.counts
    return None if counts is None else counts[self.indices]

  def fingerprint(self) -> str | None:
    inner = self.source.fingerprint()
    return inner and f"{inner} {hashlib.sha256(self.indices.tobytes()).hexdigest()}"


class Joined(Source):
  """The records of one source, then those of another. ValueError if they share an id."""

  def __init__(self, first: Source, second: Source):
    self.first, self.second = first, second
    self.ids = [*first.ids, *second.ids]
    self.labeled = np.concatenate([first.labeled, second.labeled])
    self.masks = first.masks
    self.sizes = sorted({*first.sizes, *second.sizes})
    if shared := set(first.ids) & set(second.ids):
      raise ValueError(f"{len(shared)} ids are in both sources to be joined: {min(shared)!r}")

  def __getitem__(self, index: int) -> Record:
    offset = len(self.first)
    return self.first[index] if index < offset else self.second[index - offset]

  def fingerprint(self) -> str | None:
    both = self.first.fingerprint(), self.second.fingerprint()
    return None if None in both else " ".join(both)


def largest_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int] | None:
  """(largest height, largest width); None without any size."""
  heights_widths = tuple(zip(*sizes, strict=True))
  return (max(heights_widths[0]), max(heights_widths[1])) if heights_widths else None
