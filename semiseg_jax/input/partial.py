"""Sparse labels: p0, p1, p5, p25 keep one pixel or about 1, 5, 25 % of every class of an image.

ReCo, section 4.3, with its released code's random draws: for one seed every image and class has a
drawn seed pixel per amount, from which a square grows until it holds enough pixels of the class.
"""

import hashlib

import numpy as np

from semiseg_jax.input.counts import cached, class_counts
from semiseg_jax.input.sources import Source, Wrapped
from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms.geometry import Record

PERCENT = {"p0": 0, "p1": 1, "p5": 5, "p25": 25}
_FIRST_PASS = (25, 5, 1)  # in drawing order


def seed_positions(counts: np.ndarray, seed: int) -> dict[int, np.ndarray]:
  """{percent: int64 [n,K]}: place of the seed pixel in the row-major list of the class's pixels.

  counts: [n,K] pixels per image and class in listing order. -1 where the class is absent.
  """
  rng = np.random.RandomState(seed)
  positions = {percent: np.full(counts.shape, -1, np.int64) for percent in (*_FIRST_PASS, 0)}
  for passes in (_FIRST_PASS, (0,)):
    for image, row in enumerate(counts):
      for percent in passes:
        for class_id in np.flatnonzero(row):
          # the whole permutation, for the generator's state: choice(n, 1, replace=False) makes it
          positions[percent][image, class_id] = rng.permutation(int(row[class_id]))[0]
  return positions


def grow(label: np.ndarray, positions: np.ndarray, percent: int) -> np.ndarray:
  """The label with all but the grown pixels set to IGNORE.

  label: uint8 [H,W]; positions: [K] as one row of seed_positions. Of a class with n pixels those
  within Chebyshev distance 2k of the seed are kept, with the smallest k that keeps trunc(p n).
  """
  sparse = np.full_like(label, IGNORE)
  for class_id in np.flatnonzero(positions >= 0):
    rows, columns = np.nonzero(label == class_id)
    place = positions[class_id]
    distance = np.maximum(abs(rows - rows[place]), abs(columns - columns[place]))
    target = int(percent / 100 * len(rows))
    reach = np.partition(distance, target - 1)[target - 1] if target else 0
    kept = distance <= reach + reach % 2
    sparse[rows[kept], columns[kept]] = class_id
  return sparse


class PartialLabels(Wrapped):
  """A source with all its images and sparse labels.

  partial: "p0", "p1", "p5" or "p25". The table of seed pixels covers the whole source (wrap before
  taking subsets) and is kept in the user's cache.
  """

  def __init__(self, source: Source, partial: str, seed: int, num_classes: int):
    if partial not in PERCENT:
      raise ValueError(f"partial {partial!r} is not one of {list(PERCENT)}")
    super().__init__(source)
    self.percent = PERCENT[partial]
    counts = class_counts(source, num_classes)
    digest = hashlib.sha256(np.ascontiguousarray(counts, np.int64).tobytes()).hexdigest()
    draw = lambda: np.stack([*map(seed_positions(counts, seed).get, PERCENT.values())])
    table = cached(f"partial-{digest}-{counts.shape}-{seed}", draw)
    self._positions = table[list(PERCENT).index(partial)]

  def __getitem__(self, index: int) -> Record:
    record = self.source[index]
    return {**record, "label": grow(record["label"], self._positions[index], self.percent)}
