"""Levels, normalisation and the passes through 8 bits."""

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.augment import levels
from tests import golden

ALL_LEVELS = np.repeat(np.arange(256, dtype=np.float32)[:, None], 3, axis=1)
ULP = 2.4e-7  # of values up to 2.64


@golden.cases("reco/quantisation*")
def test_normalize(case):
  normalised = jax.jit(levels.normalize)(ALL_LEVELS)
  assert normalised.dtype == jnp.float32
  np.testing.assert_allclose(np.asarray(normalised).T, case["normalised"], rtol=0, atol=ULP)


@golden.cases("memory_bank/flip_normalize*")
def test_normalize_by_mean_alone(case):
  recorded = [name for name in case if name.startswith(("rgb_", "bgr_"))]
  assert recorded
  for name in recorded:
    order, _, dataset = name.partition("_")
    # of the original's names of datasets: all others are normalised alike
    means = {"pascal_voc": "pascal", "cityscapes": "cityscapes"}.get(dataset, "half")
    images = golden.nhwc(case["image"])[..., :: 1 if order == "rgb" else -1]
    got = levels.normalize(images, levels.NORMALIZATIONS[f"{means}_{order}"])
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, golden.nhwc(case[name]), rtol=0, atol=ULP)


def test_normalize_for_coco_weights():
  got = levels.normalize(np.array([[10, 20, 30]], np.uint8), levels.NORMALIZATIONS["coco"])
  np.testing.assert_allclose(got, [[30 - 104.008, 20 - 116.669, 10 - 122.675]], rtol=1e-6)


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
