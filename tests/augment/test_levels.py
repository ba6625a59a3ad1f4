"""Levels and the passes through 8 bits."""

import jax
import numpy as np

from semiseg_jax.augment import levels
from tests import golden

ALL_LEVELS = np.repeat(np.arange(256, dtype=np.float32)[:, None], 3, axis=1)


@golden.cases("reco/quantisation*")
def test_eight_bit_passes(case):
  one = jax.jit(levels.eight_bit_pass)(ALL_LEVELS)
  two = jax.jit(levels.eight_bit_pass)(one)
  np.testing.assert_array_equal(np.asarray(one).T, case["level_after_one_pass"])
  np.testing.assert_array_equal(np.asarray(two).T, case["level_after_two_passes"])


@golden.cases("reco/quantisation*")
def test_black_in_normalised_space(case):
  np.testing.assert_array_equal(levels.BLACKED_OUT, case["level_of_normalised_zero"])


@golden.cases("reco/quantisation*")
def test_eight_bit_confidence(case):
  once = jax.jit(levels.eight_bit_confidence)(case["confidence"])
  np.testing.assert_array_equal(once, case["confidence_after"])
  np.testing.assert_array_equal(np.round(255 * np.asarray(once)), case["confidence_level"])
  np.testing.assert_array_equal(jax.jit(levels.eight_bit_confidence)(once), once)


def test_unit_interval_is_correctly_rounded():
  """A confidence of a whole level must survive, so k / 255 is the float32 that is nearest."""
  got = jax.jit(levels.eight_bit_confidence)(np.arange(256, dtype=np.float32) / np.float32(255))
  np.testing.assert_array_equal(got, np.arange(256, dtype=np.float32) / np.float32(255))


def test_is_member_of_a_table_per_image():
  rng = np.random.default_rng(0)
  members = rng.random((3, 256)) < 0.5
  values = rng.integers(0, 256, (3, 40, 20))
  got = jax.jit(levels.is_member)(values, members[:, None, None])
  np.testing.assert_array_equal(got, members[np.arange(3)[:, None, None], values])
