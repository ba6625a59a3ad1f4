"""The views of a batch that ReCo's methods learn from, made on the device."""

from functools import partial

import jax
import jax.numpy as jnp

from semiseg_jax.augment import mix
from semiseg_jax.augment.geometry import draw_flip, draw_scale_crop, flip, scale_crop
from semiseg_jax.augment.levels import eight_bit_confidence, eight_bit_pass
from semiseg_jax.augment.photometric import (
  color_jitter,
  draw_blur,
  draw_color_jitter,
  gaussian_blur,
  gray,
)
from semiseg_jax.collectives import DATA_AXIS, device_count, device_index

MIXINGS = ("cutout", "cutmix", "classmix")
View = dict[str, jax.Array]

_STRONG_JITTER = 0.5  # reach of brightness, contrast and saturation
_STRONG_SIGMA = (0.1, 2.0)  # of the blur, in pixels


def labeled_view(batch: dict[str, View], key: jax.Array, augment: bool = True) -> View:
  """All labelled images, those of a second domain behind the others.

  {"image", "label", "rank"}: colour jitter, blur and flip, or, without augment, as they came from
  the input. rank int32 [B] is the image's place among all devices' labelled images.
  """
  streams = [(batch[name], use) for name, use in (("labeled", 0), ("domain", 5)) if name in batch]
  parts = [
    stream_view(stream, image_keys(key, stream["position"], use) if augment else None)
    for stream, use in streams
  ]
  view = {name: jnp.concatenate([part[name] for part in parts]) for name in parts[0]}
  return {**view, "rank": jnp.concatenate(ranks([len(part["label"]) for part in parts]))}


def stream_view(stream: View, keys: jax.Array | None) -> View:
  """One stream's images [B,H,W,3] and labels [B,H,W], as they are without keys [B]."""
  images, labels = stream["image"].astype(jnp.float32), stream["label"].astype(jnp.int32)
  if keys is not None:
    images, (labels,) = strong_view(images, (labels,), keys)
  return {"image": images, "label": labels}


def mixed_view(
  images: jax.Array,
  pseudo_label: jax.Array,
  confidence: jax.Array,
  position: jax.Array,
  key: jax.Array,
  *,
  mixing: str,
  scale_range: tuple[float, float],
  eight_bit_passes: bool,
  axis_name: str | None,
) -> View:
  """Unlabelled crops [B,H,W,3] rescaled, mixed, then jittered, blurred and flipped.

  {"image", "label", "confidence"}. mixing: one of MIXINGS, among the images of axis_name.
  eight_bit_passes: the original's two round trips through 8-bit images.
  """
  if eight_bit_passes:
    images, confidence = eight_bit_pass(images), eight_bit_confidence(confidence)
  if tuple(scale_range) != (1.0, 1.0):
    size = images.shape[1:3]
    draws = draw_scale_crop(image_keys(key, position, 1), size, scale_range, size)
    images, pseudo_label, confidence = scale_crop(
      images, pseudo_label, confidence, draws, size, scale_range
    )
  if eight_bit_passes:
    images, confidence = eight_bit_pass(images), eight_bit_confidence(confidence)
  images, pseudo_label, confidence = mixed(
    images, pseudo_label, confidence, image_keys(key, position, 2), mixing, axis_name
  )
  images, (pseudo_label, confidence) = strong_view(
    images, (pseudo_label, confidence), image_keys(key, position, 3)
  )
  return {"image": images, "label": pseudo_label, "confidence": confidence}


def mixed(
  images: jax.Array,
  labels: jax.Array,
  confidence: jax.Array,
  keys: jax.Array,
  mixing: str,
  axis_name: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Parts of each image cut out, or pasted into the one before it."""
  if mixing == "classmix":
    mask = mix.class_mask(labels, mix.draw_classes(keys, labels))
  else:
    mask = mix.box_mask(mix.draw_boxes(keys, labels.shape[1:]), labels.shape[1:])
  view = images, labels, confidence
  return mix.cutout(view, mask) if mixing == "cutout" else mix.mix(view, mask, axis_name)


def strong_view(
  images: jax.Array, maps: tuple[jax.Array, ...], keys: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
  """Colour jitter, blur, and a flip of the image levels [B,H,W,3] and of all maps [B,H,W]."""
  jitter_keys, blur_keys, flip_keys = _three(keys)
  images = color_jitter(images, draw_color_jitter(jitter_keys))
  images = gaussian_blur(images, draw_blur(blur_keys))
  flipped = draw_flip(flip_keys)
  return flip(images, flipped), tuple(flip(m, flipped) for m in maps)


def strong_colors(images: jax.Array, keys: jax.Array) -> jax.Array:
  """Images [B,H,W,3] jittered, a fifth of them grey, half of them blurred; keys: [B] (UniMatch)."""
  jitter_keys, gray_keys, blur_keys = _three(keys)
  images = color_jitter(images, draw_color_jitter(jitter_keys, _STRONG_JITTER))
  images = gray(images, jax.vmap(partial(jax.random.bernoulli, p=0.2))(gray_keys))
  return gaussian_blur(images, draw_blur(blur_keys, _STRONG_SIGMA), _STRONG_SIGMA[1])


def image_keys(key: jax.Array, position: jax.Array, use: int) -> jax.Array:
  """One key per image [B], from its position in the stream; `use` separates the draws."""
  key = jax.random.fold_in(key, use)
  return jax.vmap(lambda p: jax.random.fold_in(key, p))(position)


def ranks(sizes: list[int]) -> list[jax.Array]:
  """Each image's place in the global batch, streams one after the other, on any device count."""
  index, count = device_index(DATA_AXIS), device_count(DATA_AXIS)
  starts = [count * sum(sizes[:i]) for i in range(len(sizes))]
  return [
    start + index * size + jnp.arange(size) for start, size in zip(starts, sizes, strict=True)
  ]


def _three(keys: jax.Array) -> jax.Array:
  """Keys [3,B] out of keys [B]."""
  return jnp.moveaxis(jax.vmap(partial(jax.random.split, num=3))(keys), 1, 0)
