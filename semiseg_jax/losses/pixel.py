"""Cross-entropies over pixels; with an axis name their means are over the global batch."""

import jax
import jax.numpy as jnp

from semiseg_jax.collectives import psum
from semiseg_jax.labels import IGNORE


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


def supervised_loss(
  logits: jax.Array, labels: jax.Array, axis_name: str | None = None
) -> jax.Array:
  """Mean cross-entropy over the labelled pixels of the global batch.

  NaN with a gradient of zero if there is none. Shapes as in `cross_entropy`.
  """
  return _mean_where(cross_entropy(logits, labels), labels != IGNORE, axis_name)


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
  return _mean_where(weight[:, None, None] * loss, loss > 0, axis_name)


def _mean_where(values: jax.Array, mask: jax.Array, axis_name: str | None) -> jax.Array:
  """Mean over the mask's pixels on all devices; NaN, with a gradient of zero, over none."""
  total = psum(jnp.where(mask, values, 0).sum(), axis_name)
  count = psum(mask.sum(), axis_name)
  return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)
