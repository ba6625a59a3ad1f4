"""Colour jitter and blur on real-valued levels against recorded results."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.augment.continuous import (
  ColorFactors,
  draw_color_factors,
  gaussian_blur,
  jitter_colors,
)
from tests import golden

LEVEL = 2e-3  # float32 hues, in levels
NEUTRAL = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
OPERATIONS = tuple(NEUTRAL)
jitter = jax.jit(jitter_colors)
blur = jax.jit(gaussian_blur)


@golden.cases("memory_bank/color_jitter*")
def test_recorded_jitter(case):
  images = golden.nhwc(case["image"])
  for i in range(sum(name.endswith(".order") for name in case)):
    factors = [case[f"case{i}.{name}_factor"] for name in OPERATIONS]
    got = jitter(images, ColorFactors(*factors, case[f"case{i}.order"].astype(np.int32)))
    np.testing.assert_allclose(got, golden.nhwc(case[f"case{i}.image"]), rtol=0, atol=LEVEL)


@golden.cases("memory_bank/color_jitter*")
def test_recorded_operations(case):
  images = golden.nhwc(case["image"])
  for place, name in enumerate(OPERATIONS):
    factors = {n: np.full(len(images), value, np.float32) for n, value in NEUTRAL.items()}
    factors[name] = case[f"single.{name}_factor"]
    order = np.roll(np.arange(4, dtype=np.int32), -place)  # the neutral ones follow
    got = jitter(images, ColorFactors(**factors, order=order))
    wanted = 255 * golden.nhwc(case[f"single.{name}"])
    np.testing.assert_allclose(got, wanted, rtol=0, atol=LEVEL)


def test_reversed_channels_reverse_the_hue():
  rng = np.random.default_rng(0)
  images = rng.uniform(0, 255, (3, 4, 5, 3)).astype(np.float32)
  draws = draw_color_factors(jax.random.key(0), jax.random.split(jax.random.key(1), 3), 0.25)
  bgr = jitter(images[..., ::-1], draws._replace(hue=-draws.hue))
  np.testing.assert_allclose(bgr[..., ::-1], jitter(images, draws), atol=LEVEL)


@golden.cases("memory_bank/color_jitter*")
def test_draws(case):
  keys = jax.random.split(jax.random.key(0), (2, 2000))
  for i in range(sum(name.endswith(".order") for name in case)):
    draws = draw_color_factors(jax.random.key(3), keys[1], float(case[f"case{i}.strength"]))
    assert sorted(np.asarray(draws.order)) == [0, 1, 2, 3]
    for factor, (low, high) in zip(draws[:4], case[f"case{i}.ranges"], strict=True):
      spread = high - low
      assert low <= factor.min() < low + 0.01 * spread and high - 0.01 * spread < factor.max()
      assert factor.max() <= high
      np.testing.assert_allclose(factor.mean(), (low + high) / 2, atol=0.03 * spread)
    assert abs(np.corrcoef(np.stack(draws[:4])) - np.eye(4)).max() < 0.1
  orders = jax.vmap(lambda key: draw_color_factors(key, keys[1, :1], 0.25).order)(keys[0])
  counts = np.stack([np.bincount(place, minlength=4) for place in np.asarray(orders).T])
  np.testing.assert_allclose(counts, 500, atol=90)


@golden.cases("memory_bank/gaussian_blur*")
def test_recorded_blur(case):
  images = golden.nhwc(case["image"])
  for name in (name for name in case if name.startswith("blurred")):
    got = blur(images, jnp.array(sigma_of(case, name)))
    np.testing.assert_allclose(got, golden.nhwc(case[name]), rtol=0, atol=LEVEL)


def sigma_of(case, name):
  """Both standard deviations: from the end of a name such as "..._0p2_3", else of the kernel."""
  if numbers := re.search(r"_(\d+(?:p\d+)?)_(\d+(?:p\d+)?)$", name):
    return [float(number.replace("p", ".")) for number in numbers.groups()]
  lines = (case["kernel"].astype(np.float64).sum(axis) for axis in (1, 0))
  fall = [line[len(line) // 2] / line[len(line) // 2 + 1] for line in lines]
  return [(2 * np.log(x)) ** -0.5 for x in fall]
