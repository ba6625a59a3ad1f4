"""Scores of each class over all pixels of a set, of masks that may overlap. On the host."""

from typing import NamedTuple

import numpy as np

from semiseg_jax.evaluation.boundary import BoundaryCounts
from semiseg_jax.evaluation.image_counts import ImageCounts


class ClassScores(NamedTuple):
  """float64 [K] each, in 0..1; NaN where there is nothing to divide by.

  Pixels without a label are left out. f1 is Dice over the set. precision is NaN for a class that
  no mask has, recall for one that no image has.
  """

  iou: np.ndarray
  precision: np.ndarray
  recall: np.ndarray
  f1: np.ndarray
  boundary_iou: np.ndarray


def class_scores(counts: ImageCounts, boundaries: BoundaryCounts) -> ClassScores:
  """The scores of what images [N,K] add up to."""
  total = lambda x: np.asarray(x, np.int64).sum(0)
  hits, truth = total(counts.hits), total(counts.truth)
  predicted = total(counts.predicted_labeled)
  return ClassScores(
    iou=_ratio(hits, predicted + truth - hits),
    precision=_ratio(hits, predicted),
    recall=_ratio(hits, truth),
    f1=_ratio(2 * hits, predicted + truth),
    boundary_iou=_ratio(total(boundaries.hits), total(boundaries.union)),
  )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
