"""Which network is kept as the best, and when training goes back to it."""

import math
from typing import NamedTuple

from semiseg_jax.evaluation.metrics import Scores

MONITORS = ("miou_present", "miou", "miou_zero", "accuracy", "loss")


class Selection(NamedTuple):
  """The best score so far, never NaN, and its step; None as long as there is none. since: the step
  of the last best one, or of going back."""

  step: int | None = None
  score: float | None = None
  since: int = 0


class Verdict(NamedTuple):
  selection: Selection
  is_best: bool
  goes_back: bool


def monitored(name: str, scores: Scores, loss: float) -> float:
  """One of MONITORS, of which more is better: the loss with its sign turned."""
  return -loss if name == "loss" else float(getattr(scores, name))


def judge(
  selection: Selection, step: int, score: float, *, ties_replace: bool, patience: int | None
) -> Verdict:
  """What a score means; NaN is never the best. patience: steps without a better score after which
  training goes back to the best network, if there is one, None = never (Alonso et al. 2021)."""
  best = selection.score
  is_first = best is None and not math.isnan(score)
  if is_first or (best is not None and (score > best or (ties_replace and score == best))):
    return Verdict(Selection(step, score, step), True, False)
  if best is not None and patience is not None and step - selection.since > patience:
    return Verdict(selection._replace(since=step), False, True)
  return Verdict(selection, False, False)
