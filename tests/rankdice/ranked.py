"""Recorded runs of RankDice, and its scores restated in float64."""

import re

import numpy as np
from scipy.special import ndtr

from semiseg_jax.rankdice.solve import Decision
from tests import golden

_SOLVERS = {"1": "trna", "2": "ba"}  # by the originals' number


def settings(tag: str) -> dict:
  """Arguments of rank_dice for a run, such as "root_app2_smooth1p0_tm0"."""
  form, solver = re.match(r"(root|fork)_app(\d)", tag).groups()
  smooth = re.search(r"smooth(\w+?)(?=_|$)", tag)
  gap = re.search(r"gap(\d+)", tag)
  chosen = {"solver": _SOLVERS[solver], "form": form, "truncate_mean": "_tm1" in tag}
  chosen["smooth"] = float(smooth[1].replace("p", ".")) if smooth else 0.0
  if gap:
    chosen["gap"] = int(gap[1])
  return chosen | ({"pruning": None} if "nopruning" in tag else {})


def channels_last(array: np.ndarray) -> np.ndarray:
  return np.ascontiguousarray(golden.nhwc(array))


def assert_consistent(probs: np.ndarray, decision: Decision) -> None:
  """The masks hold tau pixels, none of them less probable than the cutpoint, and the others not."""
  masks = np.asarray(decision.masks)
  np.testing.assert_array_equal(masks.sum((1, 2)), decision.tau)
  cutpoint = np.asarray(decision.cutpoint)[:, None, None]
  taken = np.asarray(decision.tau)[:, None, None] > 0
  assert (probs >= cutpoint)[masks].all()
  assert ((probs <= cutpoint) | masks)[np.broadcast_to(taken, masks.shape)].all()


def blind_scores(
  probs: np.ndarray,
  low: int,
  up: int,
  smooth: float,
  truncate_mean: bool,
  taus: np.ndarray | None = None,
) -> np.ndarray:
  """BA's score in float64 of `taus`, or of 0..P; probs of any shape."""
  ordered = -np.sort(-probs.astype(np.float64).ravel())
  variance = (ordered * (1 - ordered)).sum()
  third = (ordered * (1 - ordered) * (1 - 2 * ordered)).sum()
  mean = (ordered >= 0.5).sum() if truncate_mean else ordered.sum()
  x = (np.arange(low - 1, up) + 0.5 - mean) / variance**0.5
  density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
  pmf = np.diff(ndtr(x) + third * (1 - x * x) * density / (6 * variance**1.5)).clip(0, 1)
  pmf /= pmf.sum()
  taus = np.arange(len(ordered) + 1) if taus is None else taus
  size = np.arange(low, up) + taus[:, None] + smooth
  total = np.append(0, ordered.cumsum())[taus]
  score = total * (2 * pmf / (size + 1)).sum(1)
  return score + smooth * (pmf / np.maximum(size, 1e-9)).sum(1)
