"""Cross-entropy with pseudo-labels, each pixel weighted by how sure the network itself is of it.

Weights carry no gradient. logits: [B,H,W,C] float32; pseudo_label: [B,H,W] int32, IGNORE where
there is none; confidence: [B,H,W], what its labeller gave it.
Sources: DST-CBC (arXiv 2004.08514), section 3.1, `losses.py`; DMT, section 3.2.
"""

import jax
import jax.numpy as jnp

from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.pixel import cross_entropy, mean_where
from semiseg_jax.models.decision import most_likely


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
  return _of_label(logits, pseudo_label) ** gamma


def mutual_weights(
  logits: jax.Array,
  pseudo_label: jax.Array,
  confidence: jax.Array,
  gamma: float,
  gamma2: float,
) -> jax.Array:
  """DMT's: the label's probability to the power gamma where the network agrees with it, gamma2
  where it doesn't, 0 where it doesn't and is surer than the labeller was; all 1 if both are 0."""
  if not gamma and not gamma2:
    return jnp.ones(pseudo_label.shape, jnp.float32)
  power = jnp.where(disagrees(logits, pseudo_label), gamma2, gamma)
  weights = _of_label(logits, pseudo_label) ** power
  return jnp.where(is_won(logits, pseudo_label, confidence), 0.0, weights)


def flipped(
  logits: jax.Array,
  pseudo_label: jax.Array,
  confidence: jax.Array,
  gamma: float,
  gamma2: float,
) -> tuple[jax.Array, jax.Array]:
  """(labels, weights) of DMT's ablation: a surer network's own label replaces the labeller's, with
  the weight (1 - confidence)^gamma2; plain labels, all of weight 1, if both powers are 0."""
  weights = mutual_weights(logits, pseudo_label, confidence, gamma, gamma2)
  if not gamma and not gamma2:
    return pseudo_label, weights
  won = is_won(logits, pseudo_label, confidence)
  labels = jnp.where(won, most_likely(logits)[0], pseudo_label)
  return labels, jnp.where(won, (1 - confidence) ** gamma2, weights)


def online_labels(logits: jax.Array, threshold: float) -> jax.Array:
  """The network's own most likely classes, IGNORE where their probability is below threshold."""
  label, confidence = most_likely(logits)
  return jnp.where(confidence >= threshold, label, IGNORE)


def disagrees(logits: jax.Array, pseudo_label: jax.Array) -> jax.Array:
  """bool [B,H,W], where there is a label and the network says another."""
  return (most_likely(logits)[0] != pseudo_label) & (pseudo_label != IGNORE)


def is_won(logits: jax.Array, pseudo_label: jax.Array, confidence: jax.Array) -> jax.Array:
  """Where the network disagrees and is surer than the labeller was."""
  return disagrees(logits, pseudo_label) & (most_likely(logits)[1] > confidence)


def _of_label(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """[B,H,W], the probability of each label, without a gradient; 0 where there is none."""
  probs = jax.nn.softmax(jax.lax.stop_gradient(logits), axis=-1)
  is_label = labels[..., None] == jnp.arange(probs.shape[-1])
  return jnp.where(is_label, probs, 0).sum(-1)
