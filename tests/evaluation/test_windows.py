"""Evaluation through windows against the original's procedure."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.evaluation.windows import seen, window_starts, windowed
from semiseg_jax.models.network import Variables
from tests import golden
from tests.tiny import Given


@golden.cases("unimatch_v2/sliding_windows*")
def test_places(case):
  rows = case["windows"]
  for number in np.unique(rows[:, 0]):
    _, side, height, width, *_ = rows[rows[:, 0] == number][0]
    starts = itertools.product(window_starts(height, side), window_starts(width, side))
    assert list(starts) == [tuple(row) for row in rows[rows[:, 0] == number][:, 4:6]]


def position(params, batch_stats, images):
  """Logits that differ by a pixel's place in the window."""
  height, width = images.shape[1:3]
  place = jnp.arange(height)[:, None] * 0.1 + jnp.arange(width) * 0.03
  return jnp.stack([images[..., 0] * place, images[..., 1], images[..., 2] - place], -1)


def test_probabilities_are_added_up():
  network, variables = Given(position), Variables({}, {})
  images = np.random.default_rng(0).uniform(size=(2, 11, 9, 3)).astype(np.float32)
  sums = np.zeros((2, 11, 9, 3))
  for row, column in itertools.product(window_starts(11, 6), window_starts(9, 4)):
    part = np.s_[:, row : row + 6, column : column + 4]
    sums[part] += jax.nn.softmax(position({}, {}, images[part]))
  expected = np.log(sums / sums.sum(-1, keepdims=True))
  found = jax.jit(windowed, static_argnums=(0, 3))(network, variables, images, (6, 4))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  finer = seen(network, variables, images, (22, 18), (6, 4))
  np.testing.assert_array_equal(finer, network.resize(jnp.asarray(found), (22, 18)))


def test_a_picture_smaller_than_its_window_is_seen_whole():
  network, variables = Given(position), Variables({}, {})
  images = np.random.default_rng(0).uniform(size=(1, 5, 4, 3)).astype(np.float32)
  found = windowed(network, variables, images, (6, 6))
  np.testing.assert_allclose(
    found, jax.nn.log_softmax(position({}, {}, images)), rtol=1e-5, atol=1e-6
  )
