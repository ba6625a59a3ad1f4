"""Rescaling of a whole batch against recorded results, and its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.augment.geometry import ScaleCrop
from semiseg_jax.augment.rescale import draw_rescale, rescale
from semiseg_jax.labels import IGNORE
from tests import golden

RANGE = (0.5, 2.0)
LEVEL = 2e-3  # float32 positions of the original times the contrast of neighbours, levels
SHARE = 1e-5  # float32 of an interpolation, of probabilities
jitted = jax.jit(rescale, static_argnums=4)


@golden.cases("memory_bank/scale_crop_*")
def test_recorded_scales(case):
  known = lambda labels: golden.known(labels, case["ignore_label"])
  images, labels, scales = golden.nhwc(case["image"]), known(case["labels"]), case["scales_f64"]
  for i, scale in enumerate(scales):
    size = np.floor(np.array(labels.shape[1:]) * scale).astype(np.int32)
    offset = np.maximum(case[f"case{i}.offset_col_row"][::-1], 0).astype(np.int32)
    got = jitted(
      images, labels, case["probs"], ScaleCrop(size, offset), (scales.min(), scales.max())
    )
    np.testing.assert_allclose(got[0], golden.nhwc(case[f"case{i}.image"]), rtol=0, atol=LEVEL)
    np.testing.assert_array_equal(got[1], known(case[f"case{i}.labels"]))
    np.testing.assert_allclose(got[2], case[f"case{i}.probs"], rtol=0, atol=SHARE)
    if scale == 1:
      np.testing.assert_array_equal(got[0], images)
      np.testing.assert_array_equal(got[2], case["probs"])


@pytest.mark.parametrize("size", [(4, 14), (13, 6), (1, 9), (16, 18)])
def test_sides_are_independent(size):
  """Labels that are their own row or column show where each pixel came from."""
  rows, columns = np.indices((8, 9)).astype(np.int32)
  offset = np.maximum(np.array(size) - (8, 9), 0) // 2
  draws = ScaleCrop(np.array(size, np.int32), offset.astype(np.int32))
  labels = np.stack([rows, columns])
  images = np.repeat(labels[..., None], 3, axis=-1).astype(np.float32)
  got_images, got_labels, confidence = jitted(images, labels, None, draws, RANGE)
  assert confidence is None
  padding = np.maximum((8, 9) - np.array(size), 0)
  before = (padding[0] + 1) // 2, padding[1] // 2
  for axis, (n_in, n_out) in enumerate(zip((8, 9), size, strict=True)):
    position = np.arange(n_in) - before[axis] + offset[axis]
    inside = (position >= 0) & (position < n_out)
    nearest = np.where(inside, np.floor(position * np.float32(n_in / n_out)), IGNORE)
    linear = np.where(inside, position * (n_in - 1) / max(n_out - 1, 1), 0)
    pixel = (axis, slice(None), before[1]) if axis == 0 else (axis, before[0])
    np.testing.assert_array_equal(got_labels[pixel], nearest)
    np.testing.assert_allclose(got_images[pixel][..., 0], linear, atol=1e-5)


def test_draws():
  draw = lambda key: draw_rescale(key, (40, 24), 0.8, (0.75, 1.75))
  draws = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 4000))
  size, offset = np.asarray(draws.size), np.asarray(draws.offset)
  np.testing.assert_allclose((size == (40, 24)).all(1).mean(), 0.2 + 0.8 / 40, atol=0.03)
  assert size.min(0).tolist() == [30, 18] and size.max(0).tolist() == [69, 41]
  room = np.maximum(size - (40, 24), 0)
  assert (offset >= 0).all() and (offset <= room).all() and (offset == room)[room > 0].any()
  large = room[:, 0] >= 20
  np.testing.assert_allclose((offset[large, 0] / room[large, 0]).mean(), 0.5, atol=0.03)


def test_labels_of_a_large_crop():
  """Pixels of float32 steps; at all of these sizes but the first two, exact steps take others."""
  draws = lambda size: ScaleCrop(jnp.array([size, 1]), jnp.zeros(2, int))
  step = jax.jit(lambda labels, size: rescale(
    jnp.zeros((1, 512, 1, 3)), labels, None, draws(size), RANGE
  )[1])  # fmt: skip
  labels = (np.arange(512) % 251).astype(np.int32)[None, :, None]
  for size in (513, 895, 656, 664, 776, 872, 876):
    source = np.floor(np.arange(512, dtype=np.float32) * (np.float32(512) / np.float32(size)))
    np.testing.assert_array_equal(step(labels, size)[0, :, 0], source.astype(int) % 251)
