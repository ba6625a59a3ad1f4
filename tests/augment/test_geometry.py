"""Rescaling, padding and cropping against recorded results and against Pillow itself."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from semiseg_jax.augment import geometry
from semiseg_jax.augment.geometry import ScaleCrop, draw_flip, draw_scale_crop, flip, scale_crop
from semiseg_jax.labels import IGNORE
from tests import golden

jitted = jax.jit(scale_crop, static_argnames=("crop", "scale_range"))


def pillow_resize(image, label, size):
  """Rows before columns, in two calls, so that the result is the same in every Pillow."""
  height, width = size
  resized = Image.fromarray(image).resize((width, image.shape[0]), Image.BILINEAR)
  resized = resized.resize((width, height), Image.BILINEAR)
  return np.asarray(resized), np.asarray(
    Image.fromarray(label).resize((width, height), Image.NEAREST)
  )


def pillow_scale_crop(image, label, size, offset, crop):
  image, label = pillow_resize(image, label, size)
  pad = [(0, max(wanted - side, 0)) for wanted, side in zip(crop, size, strict=True)]
  image = np.pad(image, [*pad, (0, 0)], mode="reflect")
  padded_label = np.pad(label, pad, constant_values=IGNORE)
  confidence = np.pad(label, pad)
  window = tuple(slice(start, start + side) for start, side in zip(offset, crop, strict=True))
  return image[window], padded_label[window], confidence[window]


def assert_equals_pillow(images, labels, sizes, offsets, crop, scale_range):
  draws = ScaleCrop(jnp.array(sizes, jnp.int32), jnp.array(offsets, jnp.int32))
  got = jitted(
    images.astype(np.float32),
    labels.astype(np.int32),
    labels.astype(np.float32) / 512,
    draws,
    crop=crop,
    scale_range=scale_range,
  )
  wanted = [
    pillow_scale_crop(*one, crop) for one in zip(images, labels, sizes, offsets, strict=True)
  ]
  images, labels, confidence = (np.stack(part) for part in zip(*wanted, strict=True))
  np.testing.assert_array_equal(got[0], images)
  np.testing.assert_array_equal(got[1], labels)
  np.testing.assert_array_equal(got[2], confidence / np.float32(512))


SHAPES = {  # shape, crop
  "wide": ((24, 40), (24, 40)),
  "tall": ((41, 17), (30, 20)),
  "power_of_two": ((32, 64), (33, 33)),
  "crop_much_larger": ((9, 7), (40, 33)),
  "one_pixel": ((1, 1), (5, 3)),
  "one_row": ((1, 30), (4, 16)),
}
SCALE_RANGE = (0.25, 2.5)
BATCH = 6


@pytest.mark.parametrize("name", SHAPES)
@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(data=st.data())
def test_equals_pillow(name, data):
  shape, crop = SHAPES[name]
  sides = [
    st.integers(max(1, int(side * SCALE_RANGE[0])), max(1, int(side * SCALE_RANGE[1])))
    for side in shape
  ]
  sizes = data.draw(st.lists(st.tuples(*sides), min_size=BATCH, max_size=BATCH))
  rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
  offsets = [
    tuple(int(rng.integers(0, max(side - wanted, 0) + 1)) for side, wanted in zip(s, crop))  # noqa: B905
    for s in sizes
  ]
  images = rng.integers(0, 256, (BATCH, *shape, 3), dtype=np.uint8)
  images[::2] = 255 * (images[::2] > 127)
  labels = rng.integers(0, 256, (BATCH, *shape), dtype=np.uint8)
  assert_equals_pillow(images, labels, sizes, offsets, crop, SCALE_RANGE)


def test_sides_up_to_4096_do_not_overflow():
  rng = np.random.default_rng(0)
  images = np.full((3, 1, 4096, 3), 255, np.uint8) - rng.integers(0, 2, (3, 1, 4096, 3), np.uint8)
  labels = rng.integers(0, 256, (3, 1, 4096), np.uint8)
  sizes, offsets = [(1, 3900), (1, 4095), (1, 6140)], [(0, 0), (0, 0), (0, 2040)]
  assert_equals_pillow(images, labels, sizes, offsets, (1, 4096), (0.95, 1.5))


def test_nearest_equals_pillow_for_every_size():
  """Pillow's accumulated step falls short of some whole numbers, which no formula shows."""
  n_in, scale_range, short = 256, (0.5, 1.5), 0
  sizes = np.arange(128, 385)
  position = np.tile(np.arange(384), (len(sizes), 1))
  axis = geometry._Axis(n_in, jnp.array(sizes)[:, None], jnp.array(position))
  source = np.asarray(geometry._nearest_source(axis, *geometry._size_range(n_in, scale_range)))
  row = Image.fromarray(np.arange(n_in, dtype=np.int32)[None])
  for n_out, got in zip(sizes, source, strict=True):
    wanted = np.asarray(row.resize((n_out, 1), Image.NEAREST))[0]
    np.testing.assert_array_equal(got[:n_out], wanted)
    short += (wanted != (2 * np.arange(n_out) + 1) * n_in // (2 * n_out)).sum()
  assert short > 0


def test_matrix_and_tap_forms_agree():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (2, 48, 5, 3)).astype(np.float32)
  axis = geometry._Axis(48, jnp.array([[3], [70]]), jnp.tile(jnp.arange(40), (2, 1)))
  source, coefficient = geometry._resampling(axis, 3)
  assert source.shape[-1] == geometry._MAX_TAPS
  np.testing.assert_array_equal(
    jax.jit(geometry._sum_by_matrix)(images, source, coefficient),
    jax.jit(geometry._sum_by_taps)(images, source, coefficient),
  )


def test_too_strong_a_reduction_is_refused():
  images = jnp.zeros((1, 64, 64, 3))
  draws = ScaleCrop(jnp.full((1, 2), 3), jnp.zeros((1, 2), jnp.int32))
  with pytest.raises(ValueError, match="64 pixels can't shrink to 3"):
    scale_crop(images, images[..., 0], None, draws, (8, 8), (0.05, 1.0))


@golden.cases("reco/image_ops*")
def test_recorded_resizes(case):
  sizes = case["resize_sizes"]
  image, label = golden.nhwc(case["image"]), case["image"][0]
  ratios = sizes / np.array(label.shape)
  repeat = lambda x: np.stack([x] * len(sizes))
  images, labels, confidence = jitted(
    repeat(image).astype(np.float32),
    repeat(label).astype(np.int32),
    None,
    ScaleCrop(jnp.array(sizes), jnp.zeros_like(sizes)),
    crop=tuple(sizes.max(0).tolist()),
    scale_range=(ratios.min().item(), ratios.max().item() + 0.1),
  )
  assert confidence is None
  for i, (height, width) in enumerate(sizes):
    wanted = golden.nhwc(case[f"resize_bilinear{i}"])
    np.testing.assert_array_equal(images[i, :height, :width], wanted)
    np.testing.assert_array_equal(labels[i, :height, :width], case[f"resize_nearest{i}"])


@golden.cases("reco/image_ops*")
def test_recorded_reflection(case):
  image = golden.nhwc(case["image"])[None].astype(np.float32)
  wanted = golden.nhwc(case["pad_reflect"])
  draws = ScaleCrop(jnp.array([image.shape[1:3]]), jnp.zeros((1, 2), jnp.int32))
  got, _, _ = jitted(
    image, image[..., 0], None, draws, crop=wanted.shape[:2], scale_range=(1.0, 1.0)
  )
  np.testing.assert_array_equal(got[0], wanted)


@pytest.mark.parametrize("scale_range", [(0.5, 1.5), (1.0, 1.0), (1.1, 1.1)])
def test_draws_of_scale_and_place(scale_range):
  shape, crop = (40, 52), (33, 45)
  keys = jax.random.split(jax.random.key(0), 2000)
  draw = functools.partial(draw_scale_crop, shape=shape, scale_range=scale_range, crop=crop)
  size, offset = map(np.asarray, jax.jit(draw)(keys))
  room = np.maximum(size - np.array(crop), 0)
  assert (offset >= 0).all() and (offset <= room).all()
  lowest, highest = (np.trunc(np.array(shape) * scale) for scale in scale_range)
  assert (size >= lowest).all() and (size <= highest).all()
  if scale_range == (0.5, 1.5):
    scale = size / np.array(shape)
    assert abs(scale[:, 0] - scale[:, 1]).max() <= 1 / 40  # one scale for both sides
    np.testing.assert_allclose(scale.mean(0), 1, atol=0.03)
    assert (offset == room).any(0).all() and (offset[room > 5] == 0).any()
    np.testing.assert_allclose((offset[room > 5] / room[room > 5]).mean(), 0.5, atol=0.03)


def test_flip_mirrors_the_chosen_images():
  x = np.arange(2 * 2 * 3 * 3).reshape(2, 2, 3, 3)
  on = jnp.array([True, False])
  got = np.asarray(flip(x, on))
  np.testing.assert_array_equal(got[0], x[0, :, ::-1])
  np.testing.assert_array_equal(got[1], x[1])
  np.testing.assert_array_equal(flip(x[..., 0], on), got[..., 0])
  drawn = draw_flip(jax.random.split(jax.random.key(0), 2000))
  assert abs(float(drawn.mean()) - 0.5) < 0.04
