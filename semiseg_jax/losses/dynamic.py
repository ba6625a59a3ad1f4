"""Cross-entropy with pseudo-labels, each pixel weighted by how sure the network itself is of it.

Weights carry no gradient. logits: [B,H,W,C]; pseudo_label: [B,H,W] int32, IGNORE where there is
none; confidence: [B,H,W], what its labeller gave it.
Sources: DST-CBC (arXiv 2004.08514), section 3.1, `losses.py`; DMT, section 3.2.
"""

import jax
import jax.numpy as jnp

from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.pixel import cross_entropy, mean_where


def weighted_mean_loss(
  logits: jax.Array, labels: jax.Array, weights: jax.Array, axis_name: str | None = None
) -> jax.Array:
  """Sum of weight times cross-entropy over the number of labelled pixels of the global batch.

  The divisor is a count, so an image with few labelled pixels has little say. NaN with a gradient
  of zero without any. weights: [B,H,W].
  """
  losses = weights * cross_entropy(logits, labels)
  return mean_where(losses, labels != IGNORE, axis_name, jnp.nan)


def dynamic_weights(logits: jax.Array, pseudo_label: jax.Array, gamma: float) -> jax.Array:
  """The label's probability to the power gamma: [B,H,W]."""
  return _of_label(_probs(logits), pseudo_label) ** gamma


def mutual_weights(
  logits: jax.Array,
  pseudo_label: jax.Array,
  confidence: jax.Array,
  gamma: float,
  gamma2: float,
) -> jax.Array:
  """DMT's: the label's probability to the power gamma where the network agrees with it, gamma2
  where it doesn't, 0 where it doesn't and is surer than the labeller was."""
  probs = _probs(logits)
  power = jnp.where(probs.argmax(-1) == pseudo_label, gamma, gamma2)
  weights = _of_label(probs, pseudo_label) ** power
  return jnp.where(is_won(logits, pseudo_label, confidence), 0.0, weights)


def flipped(
  logits: jax.Array,
  pseudo_label: jax.Array,
  confidence: jax.Array,
  gamma: float,
  gamma2: float,
) -> tuple[jax.Array, jax.Array]:
  """(labels, weights) of DMT's ablation: a surer network's own label replaces the labeller's, with
  the weight (1 - confidence)^gamma2."""
  weights = mutual_weights(logits, pseudo_label, confidence, gamma, gamma2)
  won = is_won(logits, pseudo_label, confidence)
  labels = jnp.where(won, logits.argmax(-1), pseudo_label)
  return labels, jnp.where(won, (1 - confidence) ** gamma2, weights)


def online_labels(logits: jax.Array, threshold: float) -> jax.Array:
  """The network's own most likely classes, IGNORE where their probability is below threshold."""
  probs = _probs(logits)
  return jnp.where(probs.max(-1) >= threshold, probs.argmax(-1), IGNORE).astype(jnp.int32)


def disagrees(logits: jax.Array, pseudo_label: jax.Array) -> jax.Array:
  """bool [B,H,W], where there is a label and the network says another."""
  return (logits.argmax(-1) != pseudo_label) & (pseudo_label != IGNORE)


def is_won(logits: jax.Array, pseudo_label: jax.Array, confidence: jax.Array) -> jax.Array:
  """Where the network disagrees and is surer than the labeller was."""
  return disagrees(logits, pseudo_label) & (_probs(logits).max(-1) > confidence)


def _probs(logits: jax.Array) -> jax.Array:
  return jax.nn.softmax(jax.lax.stop_gradient(logits).astype(jnp.float32), axis=-1)


def _of_label(probs: jax.Array, labels: jax.Array) -> jax.Array:
  """[B,H,W], the probability of each label, 0 without one."""
  is_label = labels[..., None] == jnp.arange(probs.shape[-1])
  return jnp.where(is_label, probs, 0).sum(-1)
