import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.models.resize import (
  bilinear_matrix,
  nearest_index,
  resize_bilinear,
  resize_nearest,
)
from tests import golden

BILINEAR = {"rtol": 1e-5, "atol": 2e-6}  # two products in float32


@golden.cases("reco/onehot_nearest_*")
def test_aligned_bilinear_equals_the_original(case):
  small, large = (golden.nhwc(case[k]) for k in ("pred_small", "pred_large"))
  ours = resize_bilinear(small, large.shape[1:3], align_corners=True)
  np.testing.assert_allclose(ours, large, **BILINEAR)


@golden.cases("reco/onehot_nearest_*")
def test_nearest_equals_the_original(case):
  sizes = (case["label"].shape[1:], case["onehot_small"].shape[2:])
  for source, n_in, n_out in zip(("source_row", "source_col"), *sizes, strict=True):
    np.testing.assert_array_equal(nearest_index(n_in, n_out), case[source])
  valid = (case["label"] >= 0).astype(np.int32)
  np.testing.assert_array_equal(resize_nearest(valid, sizes[1]), case["label_mask_small"][:, 0])
  onehot = golden.nhwc(case["onehot"])
  np.testing.assert_array_equal(resize_nearest(onehot, sizes[1]), golden.nhwc(case["onehot_small"]))
  confident = (case["confidence"] >= np.float32(case["weak_threshold"])).astype(np.int32)
  expected = case["confidence_mask_small"][:, 0]
  np.testing.assert_array_equal(resize_nearest(confident, sizes[1]), expected)


@golden.cases("reco/nearest_index*")
def test_nearest_index_equals_the_original(case):
  for name, expected in case.items():
    n_in, n_out = map(int, name.removeprefix("from").split("_to"))
    np.testing.assert_array_equal(nearest_index(n_in, n_out), expected, err_msg=name)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("n_in", "n_out"), [(5, 9), (9, 5), (1, 4), (4, 1), (7, 7), (33, 129)])
def test_bilinear_weights_interpolate(n_in, n_out, align_corners):
  matrix = bilinear_matrix(n_in, n_out, align_corners)
  np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)
  position = np.arange(n_out)
  source = position * (n_in - 1) / max(n_out - 1, 1)
  if not align_corners:
    source = np.clip((position + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
  np.testing.assert_allclose(matrix @ np.arange(n_in), source, rtol=1e-5, atol=1e-5)


def test_bilinear_without_aligned_corners_equals_jax_when_enlarging():
  x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
  expected = jax.image.resize(x, (2, 11, 20, 3), "linear", antialias=False)
  np.testing.assert_allclose(resize_bilinear(x, (11, 20), False), expected, atol=2e-6)


def test_bilinear_takes_any_leading_axes_and_keeps_the_dtype():
  x = jnp.ones((2, 3, 5, 7, 4), jnp.bfloat16)
  y = resize_bilinear(x, (9, 9), align_corners=True)
  assert (y.shape, y.dtype) == ((2, 3, 9, 9, 4), jnp.bfloat16)
  assert resize_bilinear(x[0, 0], (9, 9), align_corners=True).shape == (9, 9, 4)


def test_nearest_takes_maps_with_and_without_channels():
  x = np.arange(2 * 4 * 6).reshape(2, 4, 6)
  np.testing.assert_array_equal(resize_nearest(x, (2, 3)), x[:, ::2, ::2])
  np.testing.assert_array_equal(resize_nearest(x[..., None], (2, 3)), x[:, ::2, ::2, None])
