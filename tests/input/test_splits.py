"""ReCo's selections against the original's, and the other ways to name the labelled images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semiseg_jax.input import splits
from semiseg_jax.input.partial import PartialLabels
from semiseg_jax.input.sources import DatasetInfo, Joined, Source, Subset, Transformed
from semiseg_jax.transforms.evaluation import Whole
from tests import golden

INFO = DatasetInfo("made up", tuple("abcd"), np.zeros((4, 3), np.uint8), None)

SUBSETS = {"dst_cbc/30_0": ["image_4", "image_1"], "dst_cbc/30_1": ["image_5"], "c3/9": ["gone"]}


class Counted(Source):
  """A source that knows its counts and nothing else."""

  def __init__(self, counts, labeled=None):
    self.counts = np.asarray(counts)
    self.ids = [f"image_{i}" for i in range(len(counts))]
    self.labeled = np.ones(len(counts), bool) if labeled is None else np.asarray(labeled)

  def __getitem__(self, index):
    return {"id": self.ids[index]}


class Published(Counted):
  """Knows subsets of its images by name, as a prepared set does."""

  sizes = ((2, 3),)

  def lists(self):
    return list(SUBSETS)

  def ids_of(self, name):
    return SUBSETS[name]


def check_runs(case, select):
  presence = case["presence"].astype(bool)
  for run in range(case["num_runs"]):
    seed, count = int(case[f"seed{run}"]), int(case[f"label_num{run}"])
    if case[f"status{run}"]:
      with pytest.raises(ValueError, match=r"only \d+ of \d+ images can be chosen"):
        select(presence, count, seed)
      continue
    assert select(presence, count, seed) == case[f"labelled{run}"].tolist()


@golden.cases("reco/select_pascal*")
def test_pascal(case):
  check_runs(case, lambda *a: splits.select_balanced(*a, min_classes=3))


@golden.cases("reco/select_cityscapes*")
def test_cityscapes(case):
  check_runs(case, lambda *a: splits.select_balanced(*a, min_classes=12))


@golden.cases("reco/select_sun*")
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
    ("image_3\nulm/image_9\n", r"1 ids are not in this set, first \['ulm/image_9'\].*'image_0'"),
    ("image_3\nimage_3\n", "2 ids, 1 of them different"),
    ("image_5\n", "have no mask"),
    ("", "0 ids"),
  ):
    with pytest.raises(ValueError, match=message):
      choose(text)


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    ("reco/20", "'reco/20' is neither all, reco/COUNT_SEED, 1/PARTS_SEED, a published split nor a"),
    (
      "dst_cbc/30_0",
      r"complete Cityscapes and Pascal VOC, .*python -m data.prepare NAME --raw=DIR",
    ),
    ("reco/9_0", "only 6 have a label"),
    ("1/7_0", "is not one image"),
  ],
)
def test_specs_that_cannot_be_met(spec, message):
  with pytest.raises(ValueError, match=message):
    splits.labeled_indices(spec, Counted(np.ones((6, 4))), INFO)


def test_published_lists():
  source = Published(np.ones((6, 4)), [True] * 5 + [False])
  choose = lambda spec, source=source: splits.labeled_indices(spec, source, INFO)
  assert choose("dst_cbc/30_0").tolist() == [4, 1]
  for spec, message in (
    ("dst_cbc/30_1", r"dst_cbc/30_1: 1 of the images have no mask, first \['image_5'\]"),
    ("c3/9", r"c3/9: 1 ids are not in this set, first \['gone'\]"),
    ("dst_cbc/3_0", "the nearest are dst_cbc/30_0, dst_cbc/30_1$"),
    ("no/such", "there are dst_cbc/30_0, dst_cbc/30_1, c3/9$"),
  ):
    with pytest.raises(ValueError, match=message):
      choose(spec)


def test_what_wraps_a_source_does_not_hide_its_lists(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  source = Published(np.ones((6, 4), int))
  resized = Transformed(source, Whole())
  sparse = PartialLabels(source, "p0", 0, 4)
  for wrapped, rows in (
    (resized, [4, 1]),
    (sparse, [4, 1]),
    (Subset(resized, [1, 3, 4]), [2, 0]),
  ):
    assert splits.labeled_indices("dst_cbc/30_0", wrapped, INFO).tolist() == rows
  with pytest.raises(ValueError, match="1 ids are not in this set"):
    splits.labeled_indices("dst_cbc/30_0", Subset(source, [0, 1]), INFO)


def test_a_list_comes_before_a_file(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "dst_cbc").mkdir()
  (tmp_path / "dst_cbc" / "30_0").write_text("image_0\n")
  choose = lambda source: splits.labeled_indices("dst_cbc/30_0", source, INFO).tolist()
  assert choose(Published(np.ones((6, 4)))) == [4, 1] and choose(Counted(np.ones((6, 4)))) == [0]


def test_unlabeled(tmp_path):
  source = Published(np.ones((6, 4)))
  choose = lambda labeled, *spec: splits.unlabeled_indices(np.asarray(labeled), source, *spec)
  assert choose([4, 1], "rest").tolist() == choose([4, 1]).tolist() == [0, 2, 3, 5]
  assert choose([4, 1], "all").tolist() == [0, 1, 2, 3, 4, 5]
  assert choose([0, 5], "dst_cbc/30_0").tolist() == [4, 1]
  assert choose([4], "rest of dst_cbc/30_0").tolist() == [0, 2, 3, 5]
  (tmp_path / "ids").write_text("image_5\nimage_2\n")
  assert choose([4, 1], str(tmp_path / "ids")).tolist() == [5, 2]
  with pytest.raises(ValueError, match=r"1 of the images are labelled ones, first \['image_1'\]"):
    choose([0, 1], "dst_cbc/30_0")
  with pytest.raises(ValueError, match="'res' is neither rest, rest of SUBSET, all, a published"):
    choose([0], "res")


def test_validation_subset():
  source = Published(np.ones((6, 4)), [True] * 5 + [False])
  assert splits.val_indices(None, source).tolist() == list(range(6))
  assert splits.val_indices("dst_cbc/30_0", source).tolist() == [4, 1]
  with pytest.raises(ValueError, match="1 of the images have no mask"):
    splits.val_indices("dst_cbc/30_1", source)
  with pytest.raises(ValueError, match="images 'valtiny' is neither a published split nor a file"):
    splits.val_indices("valtiny", source)


def test_joined():
  first, second = Published(np.ones((3, 4))), Published(np.ones((2, 4)), [False, False])
  second.ids, second.sizes = ["x", "y"], ((4, 5), (2, 3))
  both = Joined(first, second)
  assert both.ids == ["image_0", "image_1", "image_2", "x", "y"] and len(both) == 5
  assert both.labeled.tolist() == [True, True, True, False, False]
  assert both.sizes == [(2, 3), (4, 5)]
  assert [both[row]["id"] for row in range(5)] == both.ids
  with pytest.raises(ValueError, match="3 ids are in both sources to be joined: 'image_0'"):
    Joined(first, first)


def test_no_label_and_unknown_rule():
  with pytest.raises(ValueError, match="no image of the training set has a label"):
    splits.labeled_indices("all", Counted(np.ones((2, 4)), [False, False]), INFO)
  with pytest.raises(ValueError, match="unknown rule"):
    splits.labeled_indices("reco/1_0", Counted(np.ones((2, 4))), INFO, rule="other")
