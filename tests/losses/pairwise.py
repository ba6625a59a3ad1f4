"""The contrast with a bank as its definition has it, over all pairs: what the sums must equal."""

import jax
import jax.numpy as jnp
from jax import lax


def contrastive_loss_direct(
  features: jax.Array,
  is_pixel: jax.Array,
  scores: jax.Array,
  rows: jax.Array,
  is_row: jax.Array,
  memory_scores: jax.Array,
) -> jax.Array:
  """1/K sum_c 1/(MN) sum_mn w_m v_n (1 - cos(f_m, k_n)), w = M a / sum a, v = N b / sum b.

  features: [K,P,D] by class, scores: [K,P], both where is_pixel [K,P]; rows: [K,S,D] and
  memory_scores: [K,S] where is_row [K,S].
  """
  unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
  similarity = jnp.matmul(
    unit(features), unit(lax.stop_gradient(rows)).swapaxes(1, 2), precision=lax.Precision.HIGHEST
  )
  pixel_weight, memory_weight = _weights(scores, is_pixel), _weights(memory_scores, is_row)
  distance = pixel_weight[:, :, None] * memory_weight[:, None, :] * (1 - similarity)
  pixels, memories = is_pixel.sum(axis=1), is_row.sum(axis=1)
  takes_part = (pixels > 1) & (memories > 1)
  term = distance.sum(axis=(1, 2)) / jnp.maximum(pixels * memories, 1)
  return jnp.where(takes_part, term, 0).mean()


def _weights(scores: jax.Array, mask: jax.Array) -> jax.Array:
  """Scores over their mean where mask [K,P], 0 elsewhere."""
  scores = jnp.where(mask, scores, 0)
  total = scores.sum(axis=1, keepdims=True)
  return scores * mask.sum(axis=1, keepdims=True) / jnp.where(total > 0, total, 1)
