"""Class-balanced thresholds on the confidence of predicted labels (DST-CBC, section 3.2; DMT).

A class's threshold lets a given share of the pixels pass that are predicted to be of it. "scale"
and "published" are the code's versions; DMT labels as scale does.
"""

import logging
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.labels import IGNORE

VERSIONS = ("scale", "published")
KEEP_ALL = np.float32(1e-5)  # the threshold of a class of which too few pixels were seen
_PUBLISHED_ALL = np.float32(1e-4)  # of all classes at a ratio of 1

# A bin is a range of the doubt 1 - confidence, so that confidences near 1 are told apart: so many
# bits of each power of two, of which float32 has 24 below 1.
_SHIFT = 23 - 10
_BITS_OF = lambda doubt: int(np.float32(doubt).view(np.uint32)) >> _SHIFT
_LARGEST, _SMALLEST = _BITS_OF(1.0), _BITS_OF(2.0**-24)
NUM_BINS = _LARGEST - _SMALLEST + 2  # the last one for no doubt at all


def bins_of(confidence: np.ndarray) -> np.ndarray:
  """int64 [...], the bin of each float32 confidence in 0..1: the surer, the higher."""
  doubt = np.maximum(np.float32(1) - confidence.astype(np.float32), 0)
  bits = (doubt.view(np.uint32) >> _SHIFT).astype(np.int64)
  return _LARGEST - np.maximum(bits, _SMALLEST - 1)


def least_of_bin(index: int) -> np.float32:
  """The smallest confidence of a bin."""
  bits = np.uint32(((_LARGEST - index + 1) << _SHIFT) - 1)
  least = 1 - min(float(bits.view(np.float32)), 1.0)
  nearest = np.float32(least)
  return nearest if float(nearest) >= least else np.nextafter(nearest, np.float32(2))


def histogram(label: np.ndarray, confidence: np.ndarray, num_classes: int) -> np.ndarray:
  """int64 [C,NUM_BINS], pixels of each class and bin; label: [...], others than 0..C-1 left out."""
  label = label.astype(np.int64).reshape(-1)
  cell = (label * NUM_BINS + bins_of(confidence.reshape(-1)))[label < num_classes]
  return np.bincount(cell, minlength=num_classes * NUM_BINS).reshape(num_classes, NUM_BINS)


def thresholds_of_histogram(
  counts: np.ndarray, ratio: float, version: str = "scale", per_class: bool = True
) -> np.ndarray:
  """float32 [C] from counts [C,NUM_BINS]: the least confidence of the bin of the exact one."""
  below = np.cumsum(counts[:, ::-1], axis=1)  # from the surest bin on

  def largest(totals: np.ndarray, place: int) -> np.float32:
    return least_of_bin(NUM_BINS - 1 - int(np.searchsorted(totals, place)))

  return _thresholds(
    [int(row[-1]) for row in below],
    lambda c, place: largest(below[c], place),
    lambda place: largest(below.sum(axis=0), place),
    ratio, version, per_class,
  )  # fmt: skip


def exact_thresholds(
  label: np.ndarray, confidence: np.ndarray, num_classes: int, ratio: float,
  version: str = "scale", per_class: bool = True,
) -> np.ndarray:  # fmt: skip
  """float32 [C] from all sampled pixels, label [N] and confidence [N], as the original has it."""
  values = [confidence[label == c] for c in range(num_classes)]
  largest = lambda values, place: np.partition(values, len(values) - place)[len(values) - place]
  return _thresholds(
    [len(v) for v in values],
    lambda c, place: largest(values[c], place),
    lambda place: largest(confidence, place),
    ratio, version, per_class,
  )  # fmt: skip


def _thresholds(
  counts: list[int], of_class: Callable, of_all: Callable, ratio: float, version: str,
  per_class: bool,
) -> np.ndarray:  # fmt: skip
  """of_class(class, place), of_all(place): the confidence at a place from the largest, from 1."""
  if version == "published" and ratio >= 1:
    return np.full(len(counts), _PUBLISHED_ALL)
  place = lambda count: min(math.floor(count * ratio) + 1, count)
  if not per_class:
    return np.full(len(counts), of_all(place(sum(counts))), np.float32)
  few = [count == 0 or (version == "scale" and count * ratio < 1) for count in counts]
  if absent := [c for c, count in enumerate(counts) if not count]:
    logging.warning("no pixel is predicted to be of classes %s: they keep every pixel", absent)
  found = [KEEP_ALL if f else of_class(c, place(counts[c])) for c, f in enumerate(few)]
  return np.asarray(found, np.float32)


def divided(probs: jax.Array, thresholds: jax.Array) -> jax.Array:
  """int32 [...], the class whose probability is most above its threshold, IGNORE where none is.

  probs: [...,C], inside jit. The published version's labels: not always the most likely class.
  """
  relative = probs / thresholds
  return jnp.where(relative.max(-1) < 1, IGNORE, relative.argmax(-1)).astype(jnp.int32)


def kept(label: np.ndarray, confidence: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
  """bool [...], where the confidence reaches its label's threshold; labels outside 0..C-1 do not
  pass."""
  table = np.full(256, np.inf, np.float32)
  table[: len(thresholds)] = thresholds
  return confidence >= table[label]
