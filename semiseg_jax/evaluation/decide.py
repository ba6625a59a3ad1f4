"""From what a network says of each pixel to labels."""

import jax
import jax.numpy as jnp

from semiseg_jax.models.decision import most_likely


def argmax(scores: jax.Array) -> jax.Array:
  """int32 [...], the class of the largest of the logits or probabilities [...,K]."""
  return scores.argmax(-1).astype(jnp.int32)


def argmax_with_confidence(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(label int32 [...], confidence float32 [...], the label's probability) of logits [...,K]."""
  # Not `most_likely`'s label: where two probabilities round to one number, logits still differ.
  return argmax(logits), most_likely(logits)[1]
