"""What a network's logits say of each pixel, for scoring and for pseudo-labels alike."""

import jax
import jax.numpy as jnp


def most_likely(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(label int32 [...], confidence float32 [...]) of logits [...,K] by their softmax."""
  probs = jax.nn.softmax(logits, axis=-1)
  return probs.argmax(-1).astype(jnp.int32), probs.max(-1)
