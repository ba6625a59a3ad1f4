"""Colour and blur against recorded results and against Pillow itself."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from semiseg_jax.augment import photometric
from semiseg_jax.augment.photometric import (
  Blur,
  ColorJitter,
  _box_radius,
  _box_weights,
  color_jitter,
  draw_blur,
  draw_color_jitter,
  gaussian_blur,
)
from tests import golden

ENHANCERS = {
  "brightness": ImageEnhance.Brightness,
  "contrast": ImageEnhance.Contrast,
  "saturation": ImageEnhance.Color,
}
BATCH, SHAPE = 8, (13, 18)


blur = jax.jit(gaussian_blur, static_argnames="max_sigma")
jitter = jax.jit(color_jitter)


def random_images(seed, shape=SHAPE):
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, (BATCH, *shape, 3), dtype=np.uint8)
  images[::2] = 255 * (images[::2] > 127)
  return images


def operation(name, images, factor):
  """One of the four operations of `color_jitter`."""
  planes = tuple(jnp.moveaxis(images, -1, 0))
  if name == "hue":
    planes = photometric._shift_hue(planes, factor)
  else:
    number = jnp.full(len(images), list(ENHANCERS).index(name))
    planes = photometric._blend(planes, photometric._blend_end(planes, number), factor)
  return jnp.stack(planes, axis=-1)


def each(function, images, *factors):
  wanted = [function(Image.fromarray(x), *map(float, f)) for x, *f in zip(images, *factors)]  # noqa: B905
  return np.stack([np.asarray(x) for x in wanted])


@pytest.mark.parametrize("name", [*ENHANCERS, "hue"])
@golden.cases("reco/image_ops*")
def test_recorded_operation(name, case):
  values = case[f"{name}_values"].astype(np.float32)
  images = np.stack([golden.nhwc(case["image"])] * len(values)).astype(np.float32)
  got = jax.jit(operation, static_argnums=0)(name, images, values)
  np.testing.assert_array_equal(got, golden.nhwc(case[name]))


@golden.cases("reco/image_ops*")
def test_recorded_blur(case):
  sigma = case["blur_sigma"].astype(np.float32)
  images = np.stack([golden.nhwc(case["image"])] * len(sigma)).astype(np.float32)
  got = blur(
    images, Blur(np.ones(len(sigma), bool), sigma), max_sigma=max(1.15, sigma.max().item())
  )
  np.testing.assert_array_equal(got, golden.nhwc(case["blur"]))


@pytest.mark.parametrize("name", ENHANCERS)
@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_blends_equal_pillow(name, seed):
  images = random_images(seed)
  factors = np.random.default_rng(seed).uniform(0, 2, BATCH).astype(np.float32)
  wanted = each(lambda x, f: ENHANCERS[name](x).enhance(f), images, factors)
  got = jax.jit(operation, static_argnums=0)(name, images.astype(np.float32), factors)
  np.testing.assert_array_equal(got, wanted)


def test_hsv_equals_pillow_for_every_third_colour():
  """Both ways; every third level of the first channel with all of the others."""
  to_hsv = jax.jit(lambda x: jnp.stack(photometric.rgb_to_hsv(tuple(x)), axis=-1))
  to_rgb = jax.jit(lambda x: jnp.stack(photometric.hsv_to_rgb(tuple(x)), axis=-1))
  second, third = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
  for first in range(0, 256, 3):
    planes = np.stack([np.full_like(second, first), second, third]).astype(np.uint8)
    pixels = np.ascontiguousarray(np.moveaxis(planes, 0, -1))
    planes = planes.astype(np.float32)
    hsv = Image.fromarray(pixels).convert("HSV")
    np.testing.assert_array_equal(to_hsv(planes), np.asarray(hsv))
    channels = [Image.fromarray(pixels[..., i]) for i in range(3)]
    np.testing.assert_array_equal(
      to_rgb(planes), np.asarray(Image.merge("HSV", channels).convert("RGB"))
    )


@pytest.mark.parametrize("max_sigma", [1.15, 3.5])
@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_blur_equals_pillow(max_sigma, seed):
  images = random_images(seed)
  sigma = np.random.default_rng(seed).uniform(0, max_sigma, BATCH).astype(np.float32)
  on = np.arange(BATCH) != 3
  wanted = each(lambda x, s: x.filter(ImageFilter.GaussianBlur(s)), images, sigma)
  wanted[3] = images[3]
  got = blur(images.astype(np.float32), Blur(on, sigma), max_sigma=max_sigma)
  np.testing.assert_array_equal(got, wanted)


def test_weights_of_a_blur_are_those_of_rounded_operations():
  """A compiler may round a product and a sum once, or multiply by a reciprocal; Pillow rounds each
  product, sum and quotient."""
  sigma = np.random.default_rng(0).uniform(0, 3.5, 100_000).astype(np.float32)
  radius = _box_radius(sigma, np)
  inner = (np.float32(1 << 24) / (2 * radius + 1)).astype(np.uint32)
  found = jax.jit(_box_weights, static_argnames="reach")(sigma, reach=4)
  np.testing.assert_array_equal(found[:, 4], inner)


def test_blur_of_a_single_pixel():
  images = jnp.full((1, 1, 1, 3), 77.0)
  draws = Blur(jnp.array([True]), jnp.array([1.0]))
  np.testing.assert_array_equal(gaussian_blur(images, draws), images)


@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_jitter_applies_the_operations_in_each_order(seed):
  images = random_images(seed).astype(np.float32)
  keys = jax.random.split(jax.random.key(seed), BATCH)
  draws = jax.jit(draw_color_jitter)(keys)
  got = jitter(images, draws)
  names = ("brightness", "contrast", "saturation", "hue")
  apply = jax.jit(operation, static_argnums=0)
  for i in range(BATCH):
    wanted = images[i : i + 1]
    for name in [names[number] for number in draws.order[i].tolist()] if draws.on[i] else []:
      wanted = apply(name, wanted, getattr(draws, name)[i : i + 1])
    np.testing.assert_array_equal(got[i], wanted[0])


def test_an_image_that_is_off_ignores_its_draws():
  images = random_images(0).astype(np.float32)
  nothing = np.full(BATCH, np.nan, np.float32)
  order = np.tile(np.arange(4), (BATCH, 1))
  draws = ColorJitter(np.zeros(BATCH, bool), nothing, nothing, nothing, nothing, order)
  np.testing.assert_array_equal(jitter(images, draws), images)


def test_draws():
  keys = jax.random.split(jax.random.key(0), 4000)
  jitter = jax.tree.map(np.asarray, jax.jit(draw_color_jitter)(keys))
  np.testing.assert_allclose(jitter.on.mean(), 0.8, atol=0.03)
  for factor, center in zip(jitter[1:5], (1, 1, 1, 0), strict=True):
    assert abs(factor - center).max() <= 0.25
    np.testing.assert_allclose(factor.mean(), center, atol=0.01)
    np.testing.assert_allclose(factor.std(), 0.5 / 12**0.5, rtol=0.05)
  assert (np.sort(jitter.order, axis=1) == np.arange(4)).all()
  orders, counts = np.unique(jitter.order, axis=0, return_counts=True)
  assert len(orders) == 24 and counts.min() > 100
  drawn = jax.tree.map(np.asarray, draw_blur(keys))
  np.testing.assert_allclose(drawn.on.mean(), 0.5, atol=0.03)
  assert drawn.sigma.min() >= 0.15 and drawn.sigma.max() <= 1.15
  np.testing.assert_allclose(drawn.sigma.mean(), 0.65, atol=0.02)
