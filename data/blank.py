"""A dataset as far as it is known without its files: for planning what it will take to train."""

import functools
import pathlib
import tempfile

import numpy as np

from data import prepare, published
from semiseg_jax.input.sources import Dataset, DatasetInfo, Source
from semiseg_jax.transforms.geometry import Record

_UNKNOWN = 1_000  # images of a set whose number its files tell


class BlankSource(Source):
  """Black images, all labelled, each with all classes; ids and published lists are real."""

  sizes = ()  # not known

  def __init__(
    self, dataset: str, split: str, count: int, num_classes: int, shape: tuple[int, int]
  ):
    self._dataset, self._split, self._shape = dataset, split, shape
    self.ids = published.listing(dataset, split) or _some_ids(dataset, split, count)
    self.labeled = np.ones(len(self.ids), bool)
    self.counts = np.ones((len(self.ids), num_classes), np.int64)

  def __getitem__(self, index: int) -> Record:
    return {
      "image": np.zeros((*self._shape, 3), np.uint8),
      "label": np.zeros(self._shape, np.uint8),
    }

  def lists(self) -> list[str]:
    return sorted(self._published)

  def ids_of(self, name: str) -> list[str]:
    return self._published[name]

  @functools.cached_property
  def _published(self) -> published.Lists:
    return published.lists(self._dataset, self._split, self.ids)


def _some_ids(dataset: str, split: str, count: int) -> list[str]:
  """Made up, but for those of published lists."""
  sets = published.unimatch_sets(dataset) if split == "train" else {}
  known = sorted({name for ids in sets.values() for name in ids})
  return known + [f"{split}_{i}" for i in range(len(known), count)]


def blank_dataset(name: str, variant: str | None, shape: tuple[int, int]) -> Dataset:
  """What data/NAME says of itself; images are of `shape`. ValueError for an unknown name."""
  builder = prepare.builder_of(name, pathlib.Path(tempfile.gettempdir()), variant)
  names, palette, counts = builder.CLASS_NAMES, builder.PALETTE, dict(builder.NUM_IMAGES)
  make = lambda split: BlankSource(name, split, counts.get(split, _UNKNOWN), len(names), shape)
  extra = make("extra") if "extra" in counts else None
  info = DatasetInfo(name, tuple(names), np.asarray(palette, np.uint8), size=None)
  return Dataset(info, make("train"), make("val"), extra)


def known(name: str | None, variant: str | None, crop: tuple[int, int]) -> Dataset | None:
  """The same for images twice the crop; None of a folder, and where there is no name."""
  if name not in prepare.builder_names():
    return None
  return blank_dataset(name, variant, (2 * crop[0], 2 * crop[1]))
