"""From what a network says of each pixel to labels, or to a mask of each class.

RankDice, which decides for the expected Dice of a whole mask, is in `rankdice`.
"""

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


def above(probs: jax.Array, threshold: float = 0.5, *, inclusive: bool = False) -> jax.Array:
  """bool [...,K], the classes whose probability [...,K] exceeds a threshold, or reaches it.

  RankSEG's rule "T": its training and validation take p > 0.5, its test p >= threshold.
  """
  return probs >= threshold if inclusive else probs > threshold
