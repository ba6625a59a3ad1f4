"""Losses of single pixels; with an axis name their means are over the global batch."""

import math

import jax
import jax.numpy as jnp

from semiseg_jax.collectives import device_count, psum
from semiseg_jax.labels import IGNORE
from semiseg_jax.schedules import ramp_up

_SMALLEST_PROB = 1e-30  # in a logarithm


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Cross-entropy of each pixel, float32 [B,H,W]; 0 where there is no label.

  logits: [B,H,W,C]; labels: [B,H,W] int32.
  """
  logits = logits.astype(jnp.float32)
  shifted = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
  is_label = labels[..., None] == jnp.arange(logits.shape[-1])
  of_label = jnp.where(is_label, shifted, 0).sum(axis=-1)
  # The sum of exponentials stays apart from the maximum, so that a sure pixel's loss is exactly 0.
  loss = jnp.log(jnp.exp(shifted).sum(axis=-1)) - of_label
  return jnp.where(labels != IGNORE, loss, 0)


def weighted_cross_entropy(
  logits: jax.Array, labels: jax.Array, class_weights: jax.Array | None = None
) -> jax.Array:
  """`cross_entropy` times the weight of each label's class: [C], or None for 1."""
  loss = cross_entropy(logits, labels)
  return loss if class_weights is None else weight_of_label(labels, class_weights) * loss


def supervised_loss(
  logits: jax.Array, labels: jax.Array, axis_name: str | None = None
) -> jax.Array:
  """Mean cross-entropy over the labelled pixels of the global batch.

  NaN with a gradient of zero if there is none. Shapes as in `cross_entropy`.
  """
  return mean_where(cross_entropy(logits, labels), labels != IGNORE, axis_name, jnp.nan)


def confidence_weighted_loss(
  logits: jax.Array,
  pseudo_label: jax.Array,
  confidence: jax.Array,
  strong_threshold: float,
  axis_name: str | None = None,
) -> jax.Array:
  """Cross-entropy with pseudo-labels, each image weighted by its share of confident pixels.

  The weight of an image is #{confidence >= strong_threshold} / #{pseudo_label != IGNORE}: ignored
  pixels count above but not below. The mean is over the pixels of the global batch whose
  cross-entropy is above 0, which leaves out ignored pixels and those that are exactly right; NaN
  with a gradient of zero if there is none.

  logits: [B,H,W,C]; pseudo_label: [B,H,W] int32; confidence: [B,H,W].
  Source: ReCo, section 3.1 (eta), as its code has it.
  """
  loss = cross_entropy(logits, pseudo_label)
  confident = (confidence >= strong_threshold).sum(axis=(1, 2))
  valid = (pseudo_label != IGNORE).sum(axis=(1, 2))
  weight = confident / jnp.maximum(valid, 1)  # an image without valid pixels has no loss to weight
  return mean_where(weight[:, None, None] * loss, loss > 0, axis_name, jnp.nan)


def confident_loss(
  logits: jax.Array,
  pseudo_label: jax.Array,
  confidence: jax.Array,
  valid: jax.Array,
  threshold: float,
  axis_name: str | None = None,
) -> jax.Array:
  """Cross-entropy of the valid pixels with confidence >= threshold, over the number of valid ones.

  NaN with a gradient of zero if there is none. logits: [B,H,W,C]; pseudo_label: [B,H,W] int32;
  confidence: [B,H,W]; valid: bool [B,H,W].
  Source: UniMatch V2, `unimatch_v2.py`.
  """
  loss = jnp.where(confidence >= threshold, cross_entropy(logits, pseudo_label), 0)
  return mean_where(loss, valid, axis_name, jnp.nan)


def class_weighted_loss(
  logits: jax.Array,
  labels: jax.Array,
  class_weights: jax.Array,
  axis_name: str | None = None,
) -> jax.Array:
  """Cross-entropy of the labelled pixels, weighted by their classes: sum w CE / sum w.

  0 without a labelled pixel. Shapes as in `cross_entropy`; class_weights: [C].
  """
  weight = weight_of_label(labels, class_weights)
  own = (weight * cross_entropy(logits, labels)).sum(), weight.sum()
  total, total_weight = psum(own, axis_name)
  return total / jnp.where(total_weight > 0, total_weight, 1)


def masked_cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  mask: jax.Array | float = 1.0,
  class_weights: jax.Array | None = None,
  axis_name: str | None = None,
) -> jax.Array:
  """Cross-entropy times a mask, summed, over the number of labelled pixels where the mask is not 0.

  The divisor is a count: neither a mask of fractions nor the class weights change it. 0 without
  such a pixel. Shapes as in `cross_entropy`; mask: [B,H,W] or a number; class_weights: [C].
  Source: C3-SemiSeg, `utils/losses.py`.
  """
  mask = jnp.where(labels != IGNORE, mask, 0)
  loss = weighted_cross_entropy(logits, labels, class_weights)
  total, count = psum(((mask * loss).sum(), (mask != 0).sum()), axis_name)
  return total / jnp.maximum(count, 1)


def pseudo_label_loss(
  logits: jax.Array,
  pseudo_label: jax.Array,
  pixel_weights: jax.Array,
  class_weights: jax.Array,
  axis_name: str | None = None,
) -> jax.Array:
  """Cross-entropy weighted by pixel and class, summed, over the number of all pixels.

  Ignored pixels count in that number. Shapes as in `cross_entropy`; pixel_weights: [B,H,W];
  class_weights: [C].
  Source: Alonso et al. 2021, as their code has it.
  """
  weight = pixel_weights * weight_of_label(pseudo_label, class_weights)
  total = psum((weight * cross_entropy(logits, pseudo_label)).sum(), axis_name)
  return total / (pseudo_label.size * device_count(axis_name))


def pseudo_label_weights(confidence: jax.Array, step: jax.Array, ramp_steps: int) -> jax.Array:
  """ramp(step) * confidence^6, the pixel weights of `pseudo_label_loss`."""
  return ramp_up(step, ramp_steps) * confidence**6


def entropy_loss(
  logits: jax.Array,
  labels: jax.Array,
  axis_name: str | None = None,
  *,
  broadcast: bool = False,
) -> jax.Array:
  """Mean entropy of the predictions at labelled pixels, in units of that of C equal classes.

  0 without a labelled pixel. logits: [B,H,W,C]; labels: [B,H,W] int32, only where they are IGNORE
  matters. broadcast: each image's entropies count under the mask of every image of the global
  batch and are added up, about B times as much, as the authors' variants of their script have it.
  """
  probs = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
  entropy = -(probs * jnp.log2(probs + _SMALLEST_PROB)).sum(axis=-1)
  mask = (labels != IGNORE).astype(jnp.float32)
  weight = psum(mask.sum(axis=0), axis_name) if broadcast else mask  # [H,W] or [B,H,W]
  total, count = psum(((weight * entropy).sum(), mask.sum()), axis_name)
  return total / (math.log2(logits.shape[-1]) * jnp.maximum(count, 1))


def weight_of_label(labels: jax.Array, class_weights: jax.Array) -> jax.Array:
  """The class weights [B,H,W] of the labels; 0 where there is none."""
  is_label = labels[..., None] == jnp.arange(class_weights.shape[0])
  return jnp.where(is_label, class_weights, 0).sum(axis=-1)


def mean_where(
  values: jax.Array, mask: jax.Array, axis_name: str | None, empty: float = 0.0
) -> jax.Array:
  """Mean over the mask's entries on all devices; `empty`, with a gradient of zero, over none."""
  total, count = psum((jnp.where(mask, values, 0).sum(), mask.sum()), axis_name)
  return jnp.where(count > 0, total / jnp.maximum(count, 1), empty)
