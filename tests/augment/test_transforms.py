"""Whole augmentation chains: the originals' recorded ones, and the same on any device count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from semiseg_jax.augment.geometry import ScaleCrop, draw_flip, draw_scale_crop, flip, scale_crop
from semiseg_jax.augment.levels import eight_bit_confidence, eight_bit_pass
from semiseg_jax.augment.photometric import (
  Blur,
  ColorJitter,
  color_jitter,
  draw_blur,
  draw_color_jitter,
  gaussian_blur,
)
from tests import golden


def recorded_draws(case):
  drawn = lambda name: np.nan_to_num(case[f"draw_{name}"]).astype(np.float32)
  order = case["draw_jitter_order"]
  return (
    ScaleCrop(jnp.array(case["resized"]), jnp.maximum(case["draw_crop"], 0)),
    ColorJitter(
      case["draw_jitter_on"] == 1,
      *(drawn(name) for name in ("brightness", "contrast", "saturation", "hue")),
      np.where(order < 0, np.arange(4), order),
    ),
    Blur(case["draw_blur_on"] == 1, drawn("blur_sigma")),
    case["draw_flip_on"] == 1,
  )


def transform(images, labels, confidence, draws, crop, scale_range):
  scaling, jitter, blur, flipped = draws
  images, labels, confidence = scale_crop(images, labels, confidence, scaling, crop, scale_range)
  images = gaussian_blur(color_jitter(images, jitter), blur)
  return tuple(flip(x, flipped) for x in (images, labels, confidence))


jitted = jax.jit(transform, static_argnums=(4, 5))


@golden.cases("reco/*transform_*")
def test_recorded_transforms(case):
  images = golden.nhwc(case["image"]).astype(np.float32)
  labels = case["label"].astype(np.int32)
  levels = case.get("confidence_level", np.zeros(labels.shape))
  confidence = levels.astype(np.float32) / np.float32(255)
  if case["through_batch_transform"]:
    images, confidence = eight_bit_pass(images), eight_bit_confidence(confidence)
  crop = labels.shape[1:] if case["crop_size"].ndim == 0 else tuple(case["crop_size"].tolist())
  images, labels, confidence = jitted(
    images, labels, confidence, recorded_draws(case), crop, tuple(case["scale_range"].tolist())
  )
  np.testing.assert_array_equal(images, golden.nhwc(case["out_image_level"]))
  np.testing.assert_array_equal(labels, golden.known(case["out_label"]))
  if "out_confidence" in case:
    np.testing.assert_array_equal(confidence, case["out_confidence"])


def drawn_chain(keys, images, labels):
  shape = labels.shape[1:]
  split = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 4))(keys), 1, 0)
  draws = (
    draw_scale_crop(split[0], shape, (0.5, 1.5), shape),
    draw_color_jitter(split[1]),
    draw_blur(split[2]),
    draw_flip(split[3]),
  )
  return transform(images, labels, images[..., 0] / 255, draws, shape, (0.5, 1.5))


@pytest.mark.parametrize("count", [8])
def test_result_does_not_depend_on_the_device(count):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (8, 16, 21, 3)).astype(np.float32)
  arrays = (jax.random.split(jax.random.key(0), 8), images, images[..., 1].astype(np.int32))
  mesh = jax.make_mesh(
    (count,),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:count],
  )
  mapped = jax.shard_map(drawn_chain, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
  got, wanted = jax.jit(mapped)(*arrays), jax.jit(drawn_chain)(*arrays)
  jax.tree.map(np.testing.assert_array_equal, got, wanted)
