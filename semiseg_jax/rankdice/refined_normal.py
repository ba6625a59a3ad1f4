"""The refined normal approximation of a count of independent events of unequal probability.

  G(x) = Phi(x) + skew (1 - x^2) phi(x) / 6

approximates P((count - mean) / deviation <= x). It is not monotone where the skew is large.
All of it is float32 on the device; RankSEG (Dai & Li, JMLR 2023) finds quantiles with SciPy.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.rankdice.rows import row_sums

_BRACKET = 10.0  # all quantiles lie within it; the original's
_HALVINGS = 12
_NEWTON = 4
_SKEW_SHIFT = 1e-5  # the original's guard, in the quantiles alone


class Moments(NamedTuple):
  """Mean, variance and third central moment of a count; float32 of one shape."""

  mean: jax.Array
  variance: jax.Array
  third: jax.Array

  def without(self, probs: jax.Array) -> "Moments":
    """Of the count without one event of these probabilities."""
    variance = probs * (1 - probs)
    third = variance * (1 - 2 * probs)
    return Moments(jnp.maximum(self.mean - probs, 0), self.variance - variance, self.third - third)


def moments(probs: jax.Array) -> Moments:
  """Of the number of events among those of each row, [R,P] -> [R]."""
  variance = lambda p: p * (1 - p)
  third = lambda p: p * (1 - p) * (1 - 2 * p)
  return Moments(*row_sums(probs, jnp.asarray, variance, third))


def cdf(x: jax.Array, skew: jax.Array) -> jax.Array:
  """G(x), neither monotone nor within [0, 1]."""
  return 0.5 * lax.erfc(-x * 0.7071067811865476) + skew * (1 - x * x) * _normal(x) / 6


def density(x: jax.Array, skew: jax.Array) -> jax.Array:
  """The derivative of G at x, negative where G falls."""
  return _normal(x) * (1 + skew * (x * x - 3) * x / 6)


def _normal(x: jax.Array) -> jax.Array:
  return jnp.exp(-0.5 * x * x) * 0.3989422804014327


def quantile(tail: float, skew: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Where G is `tail`, and where it is 1 - tail (below 1/2), to 1e-6 for skews within 6.

  A nearly certain count has |skew| > 8 and up to three such places: the largest of the lower ones
  and the smallest of the upper ones are found, as by Brent's method between -10 and 10.
  """
  # 1 - G_skew(x) = G_-skew(-x): both are lower tails, where float32 is fine enough
  lower, upper = _lower_quantile(tail, jnp.stack([skew, -skew]))
  return lower, -upper


def _lower_quantile(tail: float, skew: jax.Array) -> jax.Array:
  is_negative = cdf(jnp.zeros_like(skew), skew) > tail
  low = jnp.where(is_negative, -_BRACKET, 0.0)
  high = jnp.where(is_negative, 0.0, _BRACKET)

  def halve(_, ends):
    low, high = ends
    middle = 0.5 * (low + high)
    is_above = cdf(middle, skew) > tail
    return jnp.where(is_above, low, middle), jnp.where(is_above, middle, high)

  low, high = lax.fori_loop(0, _HALVINGS, halve, (low, high))

  def newton(_, x):
    slope = density(x, skew)
    step = (cdf(x, skew) - tail) / jnp.where(slope > 0, slope, jnp.inf)
    return jnp.clip(x - step, low, high)

  return lax.fori_loop(0, _NEWTON, newton, 0.5 * (low + high))


def domain(
  counted: Moments, size: int, tail: float = 1e-4, skew_shift: float = _SKEW_SHIFT
) -> tuple[jax.Array, jax.Array]:
  """The counts low..up-1 that matter: all but `tail` at either end, and one; int32.

  size: the number of events. A variance of 0 has no skew here.
  """
  deviation = jnp.sqrt(counted.variance)
  skew = counted.third / jnp.where(deviation > 0, deviation**3, 1) + skew_shift
  lowest, highest = quantile(tail, skew)
  low = jnp.maximum(jnp.floor(deviation * lowest + counted.mean) - 1, 0)
  up = jnp.minimum(jnp.ceil(deviation * highest + counted.mean), size)
  return low.astype(jnp.int32), up.astype(jnp.int32)


def pmf(
  counted: Moments, start: jax.Array, length: int, up: jax.Array, clip_cdf: bool = False
) -> jax.Array:
  """Probabilities [..., length] of the counts start, start + 1, ...; 0 from `up` on.

  counted: of shape [...]; start, up: int32 that broadcast to it. They do not add up to 1: some
  are clipped at 0. clip_cdf: G itself is kept within [0, 1].
  """
  whole = jnp.floor(counted.mean)  # counts are large, their distance from the mean is not
  offset = (start - whole.astype(jnp.int32))[..., None] + jnp.arange(-1, length)
  deviation = jnp.sqrt(counted.variance)[..., None]
  x = (offset + 0.5 - (counted.mean - whole)[..., None]) / deviation
  below = cdf(jnp.clip(x, -50, 50), counted.third[..., None] / deviation**3)
  below = jnp.clip(below, 0, 1) if clip_cdf else below
  probs = jnp.clip(jnp.diff(below), 0, 1)
  return jnp.where(start[..., None] + jnp.arange(length) < up[..., None], probs, 0)
