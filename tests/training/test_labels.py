"""What is looked at of a run's labels before anything is trained."""

import types

import numpy as np
import pytest

from semiseg_jax.input.datasets import open_dataset
from semiseg_jax.input.partial import PartialLabels
from semiseg_jax.input.pipeline import Stream
from semiseg_jax.input.sources import Subset, Transformed
from semiseg_jax.labels import IGNORE
from semiseg_jax.training import labels
from semiseg_jax.transforms.evaluation import ShorterSide
from tests.input.folders import mask_of, write_image, write_mask


def write_masks(root, split, count, ids):
  for i in range(count):
    write_image(root / f"{split}images" / f"{i}.png", i)
    write_mask(root / f"{split}masks" / f"{i}.png", mask_of(i, ids=ids))


def run_on(root, change=lambda source: source):
  """What check_labels looks at of a run on a folder. change: of the labelled images."""
  dataset = open_dataset("folder", root=root, class_names=("ground", "crack"))
  stream = Stream(change(dataset.train), None, 2)
  return types.SimpleNamespace(dataset=dataset, streams={"labeled": stream, "unlabeled": None})


@pytest.fixture
def root(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  write_masks(tmp_path, "val_", 2, (0, 1))
  return tmp_path


@pytest.fixture
def warned(caplog):
  """Checks a run; what was warned of."""

  def check(run) -> str:
    caplog.clear()
    labels.check_labels(run)
    return caplog.text

  return check


def test_good_labels_are_not_spoken_of(root, warned):
  write_masks(root, "", 3, (0, 1, 255))
  assert warned(run_on(root)) == ""
  sparse = lambda source: Subset(PartialLabels(source, "p0", 0, 2), [0, 2])
  assert warned(run_on(root, sparse)) == ""  # most of it ignored, as it was asked for


def test_a_class_that_is_taken_for_ignored(root, warned):
  write_masks(root, "", 3, (0, 255, 255))
  text = warned(run_on(root))
  assert "ground is the only class in the 3 masks of the labeled set: crack has no pixel" in text
  assert (
    "% of the pixels of the 3 masks" in text and 'values = {0 = "ground", 255 = "crack"}' in text
  )


def test_so_many_masks_are_read(root, warned, monkeypatch):
  monkeypatch.setattr(labels, "LOOKED_AT", 4)
  write_masks(root, "", 9, (0,))
  run, read = run_on(root), []
  source = run.dataset.train
  original = source.read_label
  monkeypatch.setattr(source, "read_label", lambda row: read.append(row) or original(row))
  assert "ground is the only class in 4 of the 9 masks" in warned(run)
  assert read == [0, 2, 5, 8]


def test_a_set_without_any_label(root, warned, monkeypatch):
  monkeypatch.setattr(labels, "LOOKED_AT", 2)
  write_masks(root, "", 5, (IGNORE,))
  smaller = lambda source: Transformed(Subset(source, range(4)), ShorterSide(4))
  with pytest.raises(ValueError, match="no pixel of the 4 masks of the labeled set has a label"):
    warned(run_on(root, smaller))
  write_mask(
    root / "masks" / "2.png", mask_of(0, ids=(0, 1))
  )  # which isn't among the first looked at
  assert "ignored" in warned(run_on(root, smaller))


def test_prepared_labels_are_not_read(root, warned, monkeypatch):
  write_masks(root, "", 4, (0, 1))
  run = run_on(root)
  source = run.dataset.train
  source.counts = np.array([[5, 0], [3, 0], [0, 2], [9, 0]])
  monkeypatch.setattr(source, "read_label", None)
  run.streams["labeled"] = Stream(Subset(source, [0, 1, 3]), None, 2)
  assert "ground is the only class in the 3 masks of the labeled set" in warned(run)
  source.counts[:] = 0
  with pytest.raises(ValueError, match="the 3 masks of the labeled set has a label"):
    warned(run)
