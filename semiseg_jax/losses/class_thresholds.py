"""A confidence threshold for each class that follows a quantile of its confidences.

C3-SemiSeg (Zhou et al., ICCV 2021), "dynamic class-balancing", as the authors' code has it.
"""

import fractions

import jax
import jax.numpy as jnp

from semiseg_jax.collectives import psum
from semiseg_jax.losses.order import kth_largest


def update_thresholds(
  thresholds: jax.Array,
  labels: jax.Array,
  confidence: jax.Array,
  *,
  end_percent: float,
  gamma: float = 0.0,
  ema: float = 0.9,
  axis_name: str | None = None,
) -> jax.Array:
  """Moves the threshold t of each class towards one of the confidences of the pixels labelled so.

    t <- ema t + (1 - ema) c_k,   k = trunc(n end_percent t^gamma),

  with c_k the k-th of the class's n confidences on all devices, the highest being the 0-th. Where
  t = 0 it becomes c_k with k = trunc(n end_percent). Where there is no c_k it stays.

  thresholds: float32 [C]; labels: int32 [B,H,W] and confidence: float32 [B,H,W] in [0, 1], both of
  this device. n end_percent is exact, to four decimals of end_percent; the original's product of
  float64 can fall just below a whole number, as 90 * 0.7 does.
  """
  labels, confidence = labels.reshape(-1), confidence.reshape(-1)
  count = psum(jnp.zeros(thresholds.shape, jnp.int32).at[labels].add(1), axis_name)
  rank = whole = _share(count, end_percent)
  if gamma != 0:
    scaled = count * jnp.float32(end_percent) * thresholds**gamma
    rank = jnp.where(thresholds == 0, whole, jnp.trunc(scaled).astype(jnp.int32))
  reached = kth_largest(rank, labels, confidence, axis_name)
  moved = thresholds + (1 - ema) * (reached - thresholds)
  moved = jnp.where(thresholds == 0, reached, moved)
  return jnp.where(rank < count, moved, thresholds)


def is_confident(labels: jax.Array, confidence: jax.Array, thresholds: jax.Array) -> jax.Array:
  """Where the confidence reaches the threshold of the pixel's label: bool [B,H,W]."""
  return confidence >= thresholds[labels]


def _share(count: jax.Array, share: float) -> jax.Array:
  """trunc(count * share), in whole numbers throughout."""
  ratio = fractions.Fraction(str(share)).limit_denominator(10_000)
  quotient, rest = jnp.divmod(count, ratio.denominator)
  return quotient * ratio.numerator + rest * ratio.numerator // ratio.denominator
