"""Which network is the best, and when training goes back to it: the original's scripted scores."""

from semiseg_jax.training.selection import Selection, judge
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
