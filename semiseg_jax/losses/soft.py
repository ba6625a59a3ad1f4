"""Losses against distributions instead of labels, and what makes distributions of labels."""

import jax
import jax.numpy as jnp

from semiseg_jax.collectives import psum
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.pixel import mean_where


def consistency_loss(
  logits: jax.Array,
  teacher_logits: jax.Array,
  mask: jax.Array | float = 1.0,
  axis_name: str | None = None,
) -> jax.Array:
  """Cross-entropy with the teacher's probabilities, over C times the pixels where mask is not 0.

  0 without such a pixel; the teacher's side gets no gradient. logits, teacher_logits: [B,H,W,C];
  mask: [B,H,W] or a number.
  Source: C3-SemiSeg, `Ctrainer.py`, whose mean runs over the classes too.
  """
  log_probs = _log_softmax(logits)
  mask = jnp.broadcast_to(mask, log_probs.shape[:-1])
  teacher = jax.lax.stop_gradient(jax.nn.softmax(teacher_logits.astype(jnp.float32), axis=-1))
  loss = -(teacher * log_probs).sum(axis=-1)
  total, count = psum(((mask * loss).sum(), (mask != 0).sum()), axis_name)
  return total / (logits.shape[-1] * jnp.maximum(count, 1))


def kld_loss(
  logits: jax.Array, mask: jax.Array | bool = True, axis_name: str | None = None
) -> jax.Array:
  """Mean of -log p over all classes of the pixels of a mask, smallest where all p are equal.

  Entries that are exactly 0 count neither above nor below; 0 without any other. logits: [B,H,W,C];
  mask: [B,H,W] bool.
  Source: C3-SemiSeg, `utils/losses.py`; given labels, its mask is of the pixels without one.
  """
  return _mean_of_nonzero(-_log_softmax(logits), mask, axis_name)


def uncertainty_loss(
  logits: jax.Array, labels: jax.Array, axis_name: str | None = None
) -> jax.Array:
  """Mean of -p log p over all classes of the labelled pixels: their entropy in nats, over C.

  Entries that are exactly 0 count neither above nor below; 0 without any other. logits: [B,H,W,C];
  labels: [B,H,W] int32, only where they are IGNORE matters.
  Source: C3-SemiSeg, `utils/losses.py`; `pixel.entropy_loss` is another system's.
  """
  log_probs = _log_softmax(logits)
  return _mean_of_nonzero(-jnp.exp(log_probs) * log_probs, labels != IGNORE, axis_name)


def sharpen(probs: jax.Array, temperature: float = 0.5) -> jax.Array:
  """probs^(1/temperature) along the last axis, made to add up to 1 again; 0 where all are 0."""
  powers = (probs / jnp.maximum(probs.max(axis=-1, keepdims=True), _TINY)) ** (1 / temperature)
  return powers / jnp.maximum(powers.sum(axis=-1, keepdims=True), _TINY)


def smooth_labels(one_hot: jax.Array, smoothing: float = 0.1, num_classes: int = 19) -> jax.Array:
  """(1 - smoothing) one_hot + smoothing / num_classes; C3-SemiSeg's 19 whatever one_hot has."""
  return (1 - smoothing) * one_hot + smoothing / num_classes


_TINY = 1e-30  # in a divisor


def _log_softmax(logits: jax.Array) -> jax.Array:
  return jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)


def _mean_of_nonzero(values: jax.Array, mask: jax.Array | bool, axis_name: str | None) -> jax.Array:
  """Mean of values [B,H,W,C] over those that are not 0 at the pixels of a mask."""
  return mean_where(values, jnp.expand_dims(mask, -1) & (values != 0), axis_name)
