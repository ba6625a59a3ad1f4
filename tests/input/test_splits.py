"""ReCo's selections against the original's, and the other ways to name the labelled images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semiseg_jax.input import splits
from semiseg_jax.input.sources import DatasetInfo
from tests import golden

INFO = DatasetInfo("made up", tuple("abcd"), np.zeros((4, 3), np.uint8), None)


class Counted:
  """A source that knows its counts and nothing else."""

  def __init__(self, counts, labeled=None):
    self.counts = np.asarray(counts)
    self.ids = [f"image_{i}" for i in range(len(counts))]
    self.labeled = np.ones(len(counts), bool) if labeled is None else np.asarray(labeled)

  def __len__(self):
    return len(self.ids)


def check_runs(case, select):
  presence = case["presence"].astype(bool)
  for run in range(case["num_runs"]):
    seed, count = int(case[f"seed{run}"]), int(case[f"label_num{run}"])
    if case[f"status{run}"]:
      with pytest.raises(ValueError, match=r"only \d+ of \d+ images can be chosen"):
        select(presence, count, seed)
      continue
    assert select(presence, count, seed) == case[f"labelled{run}"].tolist()


@golden.cases("reco/select_pascal")
def test_pascal(case):
  check_runs(case, lambda *a: splits.select_balanced(*a, min_classes=3))


@golden.cases("reco/select_cityscapes")
def test_cityscapes(case):
  check_runs(case, lambda *a: splits.select_balanced(*a, min_classes=12))


@golden.cases("reco/select_sun")
def test_sun(case):
  check_runs(case, splits.select_sun)


@golden.cases("reco/select_*")
def test_the_rest_is_unlabeled_in_listing_order(case):
  for run in range(case["num_runs"]):
    if not case[f"status{run}"] and case[f"label_num{run}"]:
      rest = splits.unlabeled_indices(case[f"labelled{run}"], Counted(case["presence"]))
      assert rest.tolist() == case[f"unlabelled{run}"].tolist()


@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 40))
def test_balanced_ends_with_distinct_images_or_an_error(seed, min_classes, count):
  presence = np.random.default_rng(seed).random((30, 6)) < 0.3
  try:
    chosen = splits.select_balanced(presence, count, seed, min_classes)
  except ValueError:
    return
  assert len(set(chosen)) == count and presence[chosen].sum(1).min() >= min_classes


def test_an_endless_search_is_an_error():
  presence = np.eye(4, dtype=bool)[[0, 0, 1, 1, 2, 2]]  # class 3 is in no image
  with pytest.raises(ValueError, match=r"no remaining image has 1 classes or more.*\[3\]"):
    splits.select_balanced(presence, 4, 0, min_classes=1)
  with pytest.raises(ValueError, match="only"):
    splits.select_sun(presence, 7, 0)
  with pytest.raises(ValueError, match="class 0, which is in no image"):
    splits.select_sun(presence[:, ::-1], 1, 0)


def test_specs():
  source = Counted(np.random.default_rng(0).integers(0, 3, (40, 4)), np.arange(40) % 5 != 0)
  listing = np.flatnonzero(source.labeled)
  choose = lambda spec, **kw: splits.labeled_indices(spec, source, INFO, **kw)
  assert choose("all").tolist() == choose("reco/0_7").tolist() == listing.tolist()
  reco = choose("reco/6_1", min_classes=2)
  expected = splits.select_balanced(source.counts[listing] > 0, 6, 1, 2)
  assert reco.tolist() == listing[expected].tolist()
  assert len(choose("reco/6_1", rule="sun")) == 6
  eighth = choose("1/8_0")
  assert len(eighth) == 4 and set(eighth) <= set(choose("1/4_0")) <= set(listing)
  assert eighth.tolist() != choose("1/8_1").tolist()
  rest = splits.unlabeled_indices(eighth, source)
  assert sorted([*rest, *eighth]) == list(range(40))
  assert splits.unlabeled_indices(choose("all"), source).tolist() == [0, 5, 10, 15, 20, 25, 30, 35]
  everything = np.arange(40)
  assert splits.unlabeled_indices(everything, source).tolist() == everything.tolist()


def test_file_of_ids(tmp_path):
  source = Counted(np.ones((6, 4)), [True] * 5 + [False])
  path = tmp_path / "ids.txt"
  choose = lambda text: (
    path.write_text(text),
    splits.labeled_indices(str(path), source, INFO).tolist(),
  )[1]
  assert choose("image_3\n\nimage_1\n") == [3, 1]
  for text, message in (
    ("image_3\nimage_9\n", "1 ids are not in the training set"),
    ("image_3\nimage_3\n", "2 ids, 1 of them different"),
    ("image_5\n", "have no mask"),
    ("", "0 ids"),
  ):
    with pytest.raises(ValueError, match=message):
      choose(text)


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    ("reco/20", "is neither all, reco/COUNT_SEED"),
    ("reco/9_0", "only 6 have a label"),
    ("1/7_0", "is not one image"),
  ],
)
def test_specs_that_cannot_be_met(spec, message):
  with pytest.raises(ValueError, match=message):
    splits.labeled_indices(spec, Counted(np.ones((6, 4))), INFO)


def test_no_label_and_unknown_rule():
  with pytest.raises(ValueError, match="no image of the training set has a label"):
    splits.labeled_indices("all", Counted(np.ones((2, 4)), [False, False]), INFO)
  with pytest.raises(ValueError, match="unknown rule"):
    splits.labeled_indices("reco/1_0", Counted(np.ones((2, 4))), INFO, rule="other")
