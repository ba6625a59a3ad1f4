"""Pools that remember where their maxima were, and the way back, against loops over pixels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.models.layers import max_pool
from semiseg_jax.models.unpool import overlapping_max_pool_places, overlapping_max_unpool

SIZES = [(8, 6), (7, 9), (5, 4), (1, 2)]


def image(size, dtype=jnp.float32):
  """Few levels, so that windows have several maxima, as behind a ReLU."""
  values = np.random.default_rng(0).integers(0, 3, (2, *size, 3))
  return jnp.asarray(values, dtype)


def first_maxima(x):
  """(maximum, flat index in its plane) of every 3x3 window at stride 2, pixels row by row."""
  batch, height, width, channels = x.shape
  shape = (batch, -(-height // 2), -(-width // 2), channels)
  best, index = np.full(shape, -np.inf, np.float32), np.full(shape, -1)
  for b, i, j, c in np.ndindex(shape):
    for row, column in itertools.product(range(2 * i - 1, 2 * i + 2), range(2 * j - 1, 2 * j + 2)):
      inside = 0 <= row < height and 0 <= column < width
      if inside and x[b, row, column, c] > best[b, i, j, c]:
        best[b, i, j, c], index[b, i, j, c] = x[b, row, column, c], row * width + column
  return best, index


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", SIZES)
def test_overlapping_windows_there_and_back(size, dtype):
  x = image(size, dtype)
  best, index = first_maxima(np.asarray(x, np.float32))
  pooled, place = jax.jit(overlapping_max_pool_places)(x)
  assert pooled.dtype == dtype
  np.testing.assert_array_equal(np.asarray(pooled, np.float32), best)
  np.testing.assert_array_equal(pooled, max_pool(x, 3, 2, padding=1))

  values = np.arange(1, best.size + 1).reshape(best.shape)  # exact in float32
  expected = np.zeros((x.shape[0], size[0] * size[1], x.shape[3]), np.float32)
  for b, i, j, c in np.ndindex(best.shape):  # row by row: the last one stays
    expected[b, index[b, i, j, c], c] = values[b, i, j, c]
  unpool = jax.jit(overlapping_max_unpool, static_argnums=2)
  y = unpool(values.astype(np.float32), place, size)
  np.testing.assert_array_equal(y, expected.reshape(x.shape))


def test_the_gradient_is_that_of_the_value_that_counts():
  _, place = overlapping_max_pool_places(image((9, 9)))
  values = np.arange(1, place.size + 1, dtype=np.float32).reshape(place.shape)
  there = overlapping_max_unpool(values, place, (9, 9))
  slope = jax.grad(lambda x: overlapping_max_unpool(x, place, (9, 9)).sum())(values)
  np.testing.assert_array_equal(slope, np.isin(values, there))
  assert 0 < slope.sum() < slope.size
