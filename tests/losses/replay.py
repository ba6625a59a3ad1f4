"""The originals' recorded draws in the form that our loss takes."""

from collections.abc import Iterator

import numpy as np

from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.pools import Draws
from tests.golden import Vector


def labels_of(one_hot: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """One-hot labels [B,C,h,w] and their mask [B,1,h,w] as labels [B,h,w]."""
  valid = one_hot * mask != 0
  return np.where(valid.any(axis=1), valid.argmax(axis=1), IGNORE).astype(np.int32)


def split_positions(neg_index: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Which list, and the position in it, from positions in the concatenation of lists."""
  high = np.cumsum(sizes)
  number = np.searchsorted(high, neg_index, side="right")
  return number, neg_index - (high - sizes)[number]


def recorded_draws(case: dict[str, np.ndarray], num_classes: int) -> Draws:
  """Draws by class id from those of the surviving classes, whose negatives are in rotated order.

  Recorded classes are in the order of drawing, recorded positions sorted by class: a query's
  negatives are the same set, which is what the loss depends on.
  """
  ids, count = case["valid_classes"], case["valid_count"]
  shape = (num_classes, int(case["num_queries"]), int(case["num_negatives"]))
  draws = Draws(np.zeros(shape[:2], np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32))
  for i, c in enumerate(ids):
    if case["hard_count"][i] == 0 or len(ids) == 1:
      continue
    rotated = np.roll(np.arange(len(ids)), -i)[1:]
    number, position = split_positions(case["neg_index"][i], count[rotated])
    np.testing.assert_array_equal(np.sort(number), np.sort(case["neg_class"][i]))
    draws.query_index[c] = case["query_index"][i]
    draws.negative_class[c] = ids[rotated][number]
    draws.negative_index[c] = position
  return draws


def recorded_priorities(
  case: Vector, prefix: str, labels: np.ndarray, predictions: np.ndarray | None, num_pixels: int
) -> np.ndarray:
  """Priorities [B,P] that draw the pixels of a vector's permutations: the places in these.

  labels, predictions: [B,P]. With predictions there are two permutations for each group, of its
  hard pixels and of its easy ones.
  """
  permutations = recorded_permutations(case, f"{prefix}__")
  priorities = replayed_priorities(permutations, labels, predictions, num_pixels)
  assert next(permutations, np.zeros(0)).size == 0
  return priorities


def recorded_permutations(case: Vector, prefix: str = "") -> Iterator[np.ndarray]:
  """A vector's permutations in the order of the calls."""
  lengths = case[f"{prefix}perm_lengths"]
  return iter(np.split(case[f"{prefix}perm_flat"], np.cumsum(lengths)[:-1]))


def replayed_priorities(
  permutations: Iterator[np.ndarray],
  labels: np.ndarray,
  predictions: np.ndarray | None,
  num_pixels: int,
) -> np.ndarray:
  """The same from the next ones of many permutations."""
  priorities = np.zeros(labels.shape, np.int32)
  for image, label in enumerate(labels):
    for c in np.setdiff1d(label, (0, IGNORE)):
      pixels = np.flatnonzero(label == c)
      if len(pixels) <= num_pixels:
        continue
      is_hard = np.zeros(len(pixels), bool)
      if predictions is not None:
        is_hard = predictions[image, pixels] != c
      for kind in (pixels,) if predictions is None else (pixels[is_hard], pixels[~is_hard]):
        priorities[image, kind[next(permutations)]] = np.arange(len(kind))
  return priorities
