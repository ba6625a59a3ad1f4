"""What every prepared dataset must hold, whichever builder wrote it."""

import pathlib
import sys

import numpy as np
import tensorflow_datasets as tfds

from data import prepare
from semiseg_jax.input import counts, datasets, prepared, sources
from semiseg_jax.labels import IGNORE
from tests import golden


def check_prepared(path: pathlib.Path, name: str, data_dir: pathlib.Path) -> sources.Dataset:
  """Reads everything back; returns the dataset for further checks."""
  dataset = datasets.open_dataset(name, data_dir=data_dir, variant=variant_of(path))
  info, seen = dataset.info, set()
  assert info.palette.shape == (info.num_classes, 3) and info.palette.dtype == np.uint8
  for source in (dataset.train, dataset.val):
    assert len(source) == len(source.ids) and source.labeled.all()
    assert seen.isdisjoint(source.ids)
    seen.update(source.ids)
    recount = []
    for record in (source[i] for i in range(len(source))):
      image, label = record["image"], record["label"]
      assert image.dtype == label.dtype == np.uint8
      assert image.shape == (*label.shape, 3) and label.shape in source.sizes
      recount.append(np.bincount(label[label != IGNORE], minlength=info.num_classes))
    np.testing.assert_array_equal(recount, counts.class_counts(source, info.num_classes))
  stored = tfds.builder_from_directory(path)  # TFDS reads it too, in the same order
  keys = [record["id"].decode() for record in stored.as_data_source("train")]
  assert keys == list(dataset.train.ids)
  stamps = lambda: {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
  before = stamps()
  assert prepare.ensure(name, variant_of(path), data_dir) == path  # a second call changes nothing
  assert stamps() == before and prepared.find_prepared(name, data_dir, variant_of(path)) == path
  assert "tensorflow" not in sys.modules
  return dataset


def variant_of(path: pathlib.Path) -> str | None:
  return None if path.parent.name.startswith("semiseg_") else path.parent.name


def label_names(dataset: str) -> list:
  """The class list of an original code base's own copy."""
  return golden.load_json("segmentation_zoo/label_names.json")[dataset]
