"""Parts of the search that large images take: all by rows of probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.rankdice.cuts import above, cut_above, largest, search
from semiseg_jax.rankdice.rows import row_max, row_sums, to_rows

_SIZES = [1, 7, 300, 8 * 4096 + 5]


def _rows(size: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).random((3, size), np.float32)


@pytest.mark.parametrize("size", _SIZES)
def test_sums_and_maxima(size):
  rows = _rows(size)
  sums = row_sums(rows, jnp.asarray, jnp.square)
  np.testing.assert_allclose(sums, np.stack([rows.sum(1), (rows**2).sum(1)]), rtol=1e-5)
  np.testing.assert_array_equal(row_max(rows), rows.max(1))
  found = above(rows, np.float32([0, 0.5, 2]))
  np.testing.assert_array_equal(found.count, [size, (rows[1] > 0.5).sum(), 0])


@pytest.mark.parametrize("size", [300, 8 * 4096 + 5])
def test_the_largest_in_order(size):
  rows = np.round(_rows(size), 3)  # many are equal
  np.testing.assert_array_equal(largest(rows, 20), -np.sort(-rows)[:, :20])


@pytest.mark.parametrize("size", _SIZES)
def test_the_search_maximises_a_ratio(size):
  """C / (n + b), whose best cut is after the pixels above its own largest value."""
  rows, b = _rows(size), np.float32([0.5, 20, 3000])
  found = jax.jit(lambda r: search(r, lambda n, total: total / (n + b), 0.5 * r.max(1)))(rows)
  ordered = -np.sort(-rows.astype(np.float64))
  ratio = ordered.cumsum(1) / (np.arange(1, size + 1) + b[:, None])
  cut = cut_above(rows, found)
  ours = np.take_along_axis(ratio, np.asarray(cut.tau)[:, None] - 1, 1)[:, 0]
  np.testing.assert_allclose(ours, ratio.max(1), rtol=1e-7)
  following = np.append(ordered, np.full((3, 1), -1), 1)[np.arange(3), cut.tau]
  np.testing.assert_array_equal(cut.cutpoint, np.float32(following))


def test_rows_of_any_shape():
  probs = np.random.default_rng(0).random((2, 3, 4, 5, 6)).astype(np.float16)
  rows = jax.jit(to_rows)(probs)
  np.testing.assert_array_equal(rows.reshape(2, 6, 3, 4, 5), np.moveaxis(probs, -1, 1))
