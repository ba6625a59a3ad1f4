"""The views of the memory bank: recorded calls, what is drawn, and the same on any device count."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from semiseg_jax.augment import photometric
from semiseg_jax.augment.continuous import ColorFactors, draw_color_factors, gaussian_blur
from semiseg_jax.augment.geometry import ScaleCrop
from semiseg_jax.augment.memory_bank import STRONG, WEAK, Draws, augment, draw_view
from tests import golden

LEVEL = 2e-3  # float32 of three stages, in levels
SHARE = 1e-5  # float32 of two interpolations, of probabilities
NEUTRAL = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
augmented = jax.jit(augment, static_argnames=("strength", "axis_name"))
drawn = jax.jit(draw_view, static_argnames=("strength", "background"))


def recorded_draws(case, labels):
  """The draws of a recorded call; what it did not draw is neutral."""
  batch, size = len(labels), np.array(labels.shape[1:])
  pasted = np.zeros((batch, 256), bool)
  for chosen, label, mask in zip(pasted, labels, case.get("mix_mask", ()), strict=False):
    chosen[label[mask == 1]] = True
  factor = lambda name: case.get(f"{name}_factor", np.full(batch, NEUTRAL[name], np.float32))
  return Draws(
    mix=np.array("mix_mask" in case),
    pasted=pasted,
    rescale=ScaleCrop(
      np.floor(size * case["scale_f64"]).astype(np.int32),
      np.maximum(case["crop_offset_col_row"][::-1], 0).astype(np.int32),
    ),
    flip=case["flip"] == 1,
    jitter=case["jitter"] == 1,
    colors=ColorFactors(
      *(factor(name) for name in NEUTRAL), case.get("order", np.arange(4)).astype(np.int32)
    ),
    blur=case["blur"] == 1,
    sigma=np.array(STRONG.sigma, np.float32),
  )


@golden.cases("memory_bank/augment_*")
def test_recorded_calls(case):
  labels = golden.known(case["labels"], case["ignore_label"])
  scale = float(case["scale_f64"])
  strength = dataclasses.replace(WEAK if case["weak"] else STRONG, scale_range=(scale, scale))
  draws = recorded_draws(case, labels)
  images, labels, confidence = augmented(
    golden.nhwc(case["image"]), labels, case.get("probs"), draws, strength
  )
  np.testing.assert_allclose(images, golden.nhwc(case["out_image"]), rtol=0, atol=LEVEL)
  np.testing.assert_array_equal(labels, golden.known(case["out_labels"], case["ignore_label"]))
  assert (confidence is None) == ("out_probs" not in case)
  if confidence is not None:
    np.testing.assert_allclose(confidence, case["out_probs"], rtol=0, atol=SHARE)


def eight_images():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
  labels = rng.integers(0, 4, (8, 16, 16)).astype(np.int32)
  return jax.random.split(jax.random.key(0), 8), images, labels, rng.random((8, 16, 16), np.float32)


@pytest.mark.parametrize("strength", [pytest.param(WEAK, marks=pytest.mark.slow), STRONG])
def test_gates_follow_their_probabilities(strength):
  keys, _, labels, _ = eight_images()
  draw = lambda key: draw_view(key, keys[:2], labels[:2], strength)
  draws = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), 3000))
  for name in ("mix", "flip", "jitter", "blur"):
    share = np.asarray(getattr(draws, name)).mean()
    np.testing.assert_allclose(share, getattr(strength, name), atol=0.03)
  scaled = (np.asarray(draws.rescale.size) != 16).any(1).mean()
  np.testing.assert_allclose(scaled, strength.scale * 15 / 16, atol=0.03)
  gates = [draws.mix, draws.flip, draws.jitter, (draws.rescale.size != 16).any(1)]
  correlation = np.corrcoef(np.asarray(jnp.stack(gates), np.float32))
  assert abs(correlation - np.eye(len(gates))).max() < 0.06
  np.testing.assert_array_equal(draws.sigma, np.tile(np.float32([0.1, 1.5]), (3000, 1)))


def test_mixing_waits_until_it_may():
  keys, _, labels, _ = eight_images()
  always = dataclasses.replace(STRONG, mix=1.0)
  for may_mix in (False, True):
    draws = drawn(jax.random.key(0), keys, labels, always, 0, jnp.array(may_mix))
    assert bool(draws.mix) == may_mix
    assert not draws.pasted[:, 0].any()  # the background


def test_one_standard_deviation_for_both_axes():
  keys, _, labels, _ = eight_images()
  strength = dataclasses.replace(STRONG, isotropic_blur=True)
  sigma = np.stack([drawn(jax.random.key(i), keys, labels, strength).sigma for i in range(20)])
  np.testing.assert_array_equal(sigma[:, 0], sigma[:, 1])
  assert 0.1 <= sigma.min() < 0.4 and 1.2 < sigma.max() <= 1.5
  image = np.random.default_rng(0).uniform(0, 255, (1, 13, 13, 3)).astype(np.float32)
  blur = jax.jit(gaussian_blur)
  swapped = blur(np.swapaxes(image, 1, 2), sigma[0])
  np.testing.assert_allclose(np.swapaxes(swapped, 1, 2), blur(image, sigma[0]), atol=LEVEL)


def test_eight_bit_jitter():
  """The jitter alone, on levels that are not whole."""
  keys, images, _, _ = eight_images()
  images = images[:2] + np.float32(0.3)
  colors = draw_color_factors(keys[0], keys[:2], 0.25)
  view = dataclasses.replace(STRONG, eight_bit_jitter=True)
  off, same = np.array(False), ScaleCrop(np.array([16, 16]), np.zeros(2, int))
  draws = Draws(off, np.zeros((2, 256), bool), same, off, ~off, colors, off, np.ones(2))
  got, _, _ = augmented(images, np.zeros((2, 16, 16), np.int32), None, draws, view)
  each = photometric.ColorJitter(np.ones(2, bool), *colors[:4], jnp.tile(colors.order, (2, 1)))
  wanted = jax.jit(photometric.color_jitter)(jnp.round(images), each)
  np.testing.assert_array_equal(got, wanted)
  assert abs(got - images).max() > 2


ALL_STAGES = dataclasses.replace(STRONG, mix=1.0, scale=1.0, flip=1.0, jitter=1.0, blur=1.0)


def drawn_view(key, keys, images, labels, confidence, axis_name=None):
  draws = draw_view(key, keys, labels, ALL_STAGES, 0)
  return augment(images, labels, confidence, draws, ALL_STAGES, axis_name)


@functools.cache
def view_on_one_device():
  return jax.jit(drawn_view)(jax.random.key(2), *eight_images())


def test_views_on_devices():
  mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  mapped = jax.shard_map(
    lambda *x: drawn_view(*x, axis_name="data"),
    mesh=mesh,
    in_specs=(P(), *[P("data")] * 4),
    out_specs=P("data"),
  )
  check_views(jax.jit(mapped)(jax.random.key(2), *eight_images()))


@pytest.mark.slow  # whole steps run under pmap in tests/training/test_step.py
def test_views_under_pmap():
  mapped = jax.pmap(
    lambda *x: drawn_view(*x, axis_name="data"), axis_name="data", in_axes=(None, 0, 0, 0, 0)
  )
  parts = [x[:, None] for x in eight_images()]
  check_views(jax.tree.map(lambda x: x[:, 0], mapped(jax.random.key(2), *parts)))


def check_views(got):
  wanted = view_on_one_device()
  np.testing.assert_array_equal(got[1], wanted[1])
  for one, other in ((got[0], wanted[0]), (got[2], wanted[2])):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)
  images, labels = eight_images()[1:3]
  assert (wanted[1] != labels).any() and abs(wanted[0] - images).max() > 1
