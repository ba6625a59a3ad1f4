"""Sparse labels against the original's draws and files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semiseg_jax.input import partial
from semiseg_jax.input.sources import Source
from semiseg_jax.labels import IGNORE
from tests import golden


class Labels(Source):
  """A source of labels."""

  def __init__(self, labels):
    self.labels = labels
    self.ids = [str(i) for i in range(len(labels))]
    self.labeled = np.ones(len(labels), bool)
    self.sizes = sorted({label.shape for label in labels})

  def __getitem__(self, index):
    label = self.labels[index]
    return {"image": np.zeros((*label.shape, 3), np.uint8), "label": label}


def class_labels(case):
  """Labels of the case in listing order: void -> IGNORE, ids as they are."""
  void = case["void_ids"]
  images = [case[f"label_image{i}"] for i in case["order"]]
  return [np.where(np.isin(image, void), IGNORE, image).astype(np.uint8) for image in images]


def num_ids(labels):
  return max(int(label[label != IGNORE].max(initial=0)) for label in labels) + 1


@golden.cases("reco/partial_*")
def test_draws(case):
  labels = class_labels(case)
  counts = np.stack([np.bincount(l[l != IGNORE], minlength=num_ids(labels)) for l in labels])
  order = case["order"].tolist()
  for seed in sorted(set(case["draws"][:, 0].tolist())):
    positions = partial.seed_positions(counts, seed)
    rows = case["draws"][case["draws"][:, 0] == seed]
    for _, image, percent, class_id, pixels, position in rows:
      assert counts[order.index(image), class_id] == pixels
      assert positions[percent][order.index(image), class_id] == position
    assert sum((table >= 0).sum() for table in positions.values()) == len(rows)


@golden.cases("reco/partial_*")
def test_files(case, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  labels = class_labels(case)
  for seed in sorted(set(case["draws"][:, 0].tolist())):
    for name in partial.PERCENT:
      sparse = partial.PartialLabels(Labels(labels), name, seed, num_ids(labels))
      for row, image in enumerate(case["order"]):
        expected = case[f"out_seed{seed}_{name}_image{image}"]
        expected = np.where(expected == case["unlabelled_value"], IGNORE, expected)
        np.testing.assert_array_equal(sparse[row]["label"], expected)


@given(st.integers(0, 50), st.sampled_from([0, 1, 5, 25]))
def test_growth_is_the_dilation(seed, percent):
  rng = np.random.default_rng(seed)
  label = rng.integers(0, 3, rng.integers(1, 12, 2)).astype(np.uint8)
  counts = np.bincount(label.ravel(), minlength=4)
  positions = partial.seed_positions(counts[None], seed)[percent][0]
  sparse = partial.grow(label, positions, percent)
  for class_id in np.flatnonzero(counts):
    row, column = np.argwhere(label == class_id)[positions[class_id]]
    reach, target = 0, int(percent / 100 * counts[class_id])
    while True:  # one 5x5 dilation after the other
      block = np.zeros(label.shape, bool)
      block[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = 1
      if (block & (label == class_id)).sum() >= target:
        break
      reach += 2
    np.testing.assert_array_equal(sparse == class_id, block & (label == class_id))
  assert set(np.unique(sparse)) <= {*np.unique(label), IGNORE}


def test_cache_gives_the_same_table_and_may_be_unwritable(tmp_path, monkeypatch):
  source = Labels(
    [np.random.default_rng(i).integers(0, 3, (9, 9)).astype(np.uint8) for i in (0, 1)]
  )
  read = lambda: [partial.PartialLabels(source, "p5", 3, 3)[i]["label"] for i in (0, 1)]
  blocked = tmp_path / "file"
  blocked.write_text("")
  monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
  first = read()
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  second, third = read(), read()
  assert len(list((tmp_path / "cache" / "semiseg_jax").iterdir())) == 1
  np.testing.assert_array_equal(first, second)
  np.testing.assert_array_equal(first, third)


def test_unknown_amount():
  with pytest.raises(ValueError, match="p2"):
    partial.PartialLabels(Labels([np.zeros((2, 2), np.uint8)]), "p2", 0, 1)
