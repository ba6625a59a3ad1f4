"""Which network is kept as the best, and when training goes back to it."""

from typing import NamedTuple


class Selection(NamedTuple):
  """The best score so far and its step; since: the step of the last best one, or of going back."""

  step: int | None = None
  miou: float | None = None
  since: int = 0


class Verdict(NamedTuple):
  selection: Selection
  is_best: bool
  goes_back: bool


def judge(
  selection: Selection, step: int, miou: float, *, ties_replace: bool, patience: int | None
) -> Verdict:
  """What a score means. patience: steps without a better score after which training goes back to
  the best network, None = never (Alonso et al. 2021)."""
  best = selection.miou
  if best is None or miou > best or (ties_replace and miou == best):
    return Verdict(Selection(step, miou, step), True, False)
  if patience is not None and step - selection.since > patience:
    return Verdict(selection._replace(since=step), False, True)
  return Verdict(selection, False, False)
