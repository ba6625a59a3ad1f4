"""IoU and Dice of every image, then their means over images (RankSEG's appendix; rankseg's fork of
pytorch-segmentation, `utils/metrics.py`). All on the host, in float64."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from semiseg_jax.evaluation.image_counts import ImageCounts
from semiseg_jax.fields import require

PROTOCOLS = ("paper", "standard")
_EPSILON = 1e-5  # of the original's denominators


class ImageScores(NamedTuple):
  """iou, dice: [N,K], NaN for a class in neither truth nor mask of an image. accuracy: [N]."""

  iou: np.ndarray
  dice: np.ndarray
  accuracy: np.ndarray


class ImageMeans(NamedTuple):
  """Means over images, all in 0..1, NaN where nothing is to be averaged.

  accuracy: Pixel_Accuracy. iou, dice: of the images' means over the classes of interest. class_iou,
  class_dice: [K].
  """

  accuracy: float
  iou: float
  dice: float
  class_iou: np.ndarray
  class_dice: np.ndarray


def image_scores(
  counts: ImageCounts, protocol: str = "paper", smooth: float = 0.0, iou_of_sums: bool = False
) -> ImageScores:
  """The scores of counts [N,K].

  protocol: "paper", where masks on pixels without a label are wrong, or "standard", where those
  pixels are left out. accuracy: the share of pixel and class pairs that are right, always near 1.
  iou_of_sums: divides by the areas' sum and not by their union, which makes it half of Dice (the
  original under a loss whose name begins with BCE).
  """
  require("config.evaluation.protocol", protocol, PROTOCOLS)
  of_paper = protocol == "paper"
  hits, truth = np.float64(counts.hits), np.float64(counts.truth)
  predicted = np.float64(counts.predicted if of_paper else counts.predicted_labeled)
  pixels = np.float64(counts.pixels if of_paper else counts.labeled)
  areas = predicted + truth
  below = areas if iou_of_sums else areas - hits
  ratio = lambda a, b: np.where(areas > 0, (a + smooth) / (b + smooth + _EPSILON), np.nan)
  right = (pixels[:, None] - areas + 2 * hits).sum(1)
  accuracy = right / (pixels * hits.shape[1] + _EPSILON)
  return ImageScores(ratio(hits, below), ratio(2 * hits, areas), accuracy)


def image_means(scores: ImageScores, classes: Sequence[int]) -> ImageMeans:
  """The means of a set's images; classes: ids of those of interest."""
  of_interest = lambda values: mean_of_known(values[:, list(classes)], 1)
  return ImageMeans(
    accuracy=float(mean_of_known(scores.accuracy)),
    iou=float(mean_of_known(of_interest(scores.iou))),
    dice=float(mean_of_known(of_interest(scores.dice))),
    class_iou=mean_of_known(scores.iou),
    class_dice=mean_of_known(scores.dice),
  )


def with_labels(counts: ImageCounts) -> ImageCounts:
  """Those of the images with a labelled pixel.

  The original leaves out batches without any, which says the same of batches of one image.
  """
  kept = np.asarray(counts.labeled) > 0
  return ImageCounts(*(np.asarray(x)[kept] for x in counts))


def mean_of_known(values: np.ndarray, axis: int = 0) -> np.ndarray:
  """The mean of what is not NaN; NaN where there is nothing else."""
  known = ~np.isnan(values)
  count = known.sum(axis)
  total = np.where(known, values, 0).sum(axis)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)
