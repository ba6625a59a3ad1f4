"""What a network takes each pixel for, and how sure it is."""

import jax
import jax.numpy as jnp


def pseudo_label(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(label int32 [B,H,W], confidence [B,H,W]), the label's probability, of logits [B,H,W,K]."""
  probs = jax.nn.softmax(logits, axis=-1)
  return probs.argmax(-1).astype(jnp.int32), probs.max(-1)
