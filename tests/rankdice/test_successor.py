"""Masks and labels of RankDice's successor, the package `rankseg`."""

import re

import numpy as np
import pytest

from semiseg_jax.evaluation import rank_dice, rank_labels
from tests import golden
from tests.rankdice.ranked import assert_consistent, channels_last

_CASE = golden.load("rankdice/successor")
_MASKS = [name for name in _CASE if re.match(r"(softmax|sigmoid|small)__.*__multilabel", name)]
_LABELS = [name for name in _CASE if "_multiclass" in name and "__rma_" in name]


def _probs(name: str) -> np.ndarray:
  kind = name.split("__")[0]
  probs = _CASE[{"softmax": "probs", "sigmoid": "sig_probs", "small": "small_probs"}[kind]]
  return channels_last(probs)


def _settings(name: str) -> dict:
  """metric, smooth, pruning and tail, as far as the name of a run says them."""
  number = lambda text: float(text.replace("p", "."))
  found = {
    key: re.search(rf"_{key}([\de.p-]+?)(?=_|$)", name) for key in ("smooth", "prune", "eps")
  }
  keys = {"smooth": "smooth", "prune": "pruning", "eps": "tail"}
  chosen = {keys[key]: number(match[1]) for key, match in found.items() if match}
  metric = re.search(r"rma_(dice|iou)", name)
  return chosen | ({"metric": metric[1]} if metric else {})


@pytest.mark.parametrize("name", _MASKS)
def test_masks_equal_the_successors(name):
  solver = name.split("__")[1].split("_")[0].lower()
  form = {} if solver == "rma" else {"form": "successor"}
  probs, expected = _probs(name), golden.nhwc(_CASE[name]) == 1
  ours = rank_dice(probs, solver, **_settings(name), **form)
  assert_consistent(probs, ours)
  # a small class is empty under the original's BA, which takes 0 / 0 for its best score
  is_bug = (solver == "ba") & ~expected.any((1, 2)) & np.asarray(ours.masks).any((1, 2))
  assert not is_bug.any() or name.startswith("small")
  np.testing.assert_array_equal(np.where(is_bug[:, None, None], False, ours.masks), expected)


def test_small_classes_keep_their_masks_under_ba():
  probs = _probs("small__BA")
  blind, refined = (rank_dice(probs, solver, form="successor") for solver in ("ba", "trna"))
  assert (blind.tau > 0).all()
  assert (abs(blind.tau - refined.tau) <= 1).all()


@pytest.mark.parametrize("name", [name for name in _LABELS if not name.startswith("single")])
def test_labels_equal_the_successors(name):
  unclaimed = 255 if name.endswith("void") else None
  ours = rank_labels(_probs(name), **_settings(name), unclaimed=unclaimed)
  np.testing.assert_array_equal(ours, _CASE[name])


def test_a_single_class_has_a_mask():
  """As under the successor's BA; its RMA gives the number 0 to every pixel."""
  probs = channels_last(_CASE["sig_probs"][:, :1])
  ours = rank_dice(probs, form="successor")
  np.testing.assert_array_equal(ours.masks, golden.nhwc(_CASE["single_class__ba_multiclass"]) == 1)
  np.testing.assert_array_equal(rank_labels(probs), _CASE["single_class__rma_dice_multiclass"])


def test_no_pixel_is_shared_by_other_solvers():
  with pytest.raises(TypeError):
    rank_labels(_probs("small__BA"), solver="ba")
