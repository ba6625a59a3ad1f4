"""Which network is the best, and when training goes back to it: the original's scripted scores."""

import numpy as np
import pytest

from semiseg_jax.evaluation.metrics import scores
from semiseg_jax.training.selection import MONITORS, Selection, judge, monitored
from tests import golden


@golden.cases("memory_bank/checkpoint_control*")
def test_scripted_scores(case):
  selection, patience = Selection(), int(case["num_iterations"]) / 5
  rows = zip(*(case[name].tolist() for name in (
    "evaluation_iteration", "evaluation_kind", "miou_f64", "saved_as_best", "reloaded_best_after"
  )), strict=True)  # fmt: skip
  for step, kind, miou, saved, reloaded in rows:
    patience_now = patience if kind == 0 else None
    selection, is_best, goes_back = judge(
      selection, step, miou, ties_replace=False, patience=patience_now
    )
    assert (is_best, goes_back) == (bool(saved), bool(reloaded)), step


def test_ties():
  first, _, _ = judge(Selection(), 10, 0.5, ties_replace=True, patience=None)
  assert judge(first, 20, 0.5, ties_replace=True, patience=None).selection.step == 20
  assert judge(first, 20, 0.5, ties_replace=False, patience=None).selection.step == 10
  assert judge(first, 99, 0.1, ties_replace=True, patience=None) == (first, False, False)


def test_nan_is_never_the_best():
  nan, rule = float("nan"), {"ties_replace": True, "patience": 5}
  assert judge(Selection(), 10, nan, **rule) == (Selection(), False, False)  # nothing to go back to
  first, is_best, _ = judge(Selection(), 20, 0.0, **rule)
  assert is_best and first == (20, 0.0, 20)
  assert judge(first, 22, nan, **rule) == (first, False, False)
  assert judge(first, 30, nan, **rule) == (first._replace(since=30), False, True)
  assert judge(first, 30, 0.1, **rule).is_best


def test_what_may_be_monitored():
  found = scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
  values = {name: monitored(name, found, 0.7) for name in MONITORS}
  mean = (3 / 4 + 4 / 5) / 2
  assert np.isnan(values.pop("miou"))
  wanted = {"miou_present": mean, "miou_zero": mean * 2 / 3, "accuracy": 7 / 8, "loss": -0.7}
  assert values == pytest.approx(wanted)
