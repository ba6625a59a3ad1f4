"""The two approximations of the expected Dice by refined normals: blind (BA) and per pixel (T-RNA).

Both restrict the count of all labels to the domain low..up-1. BA takes the count of all pixels for
that of the others, whatever the pixel; T-RNA approximates the count without each pixel.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.rankdice.refined_normal import Moments, pmf

_RANKS = 32  # of a step of T-RNA
_COUNTS = 64


class Counted(NamedTuple):
  """How the count of each row's labels is approximated; arrays [R].

  clip_cdf: as of `refined_normal.pmf`.
  """

  moments: Moments
  low: jax.Array
  up: jax.Array
  clip_cdf: bool = False

  def pmf(self, width: int) -> jax.Array:
    """float32 [R,width] of low, low + 1, ..., adding up to 1; NaN where no count is likely."""
    probs = pmf(self.moments, self.low, width, self.up, self.clip_cdf)
    return probs / probs.sum(-1, keepdims=True)


def widest(size: int, tail: float) -> int:
  """A bound of up - low, for any `size` pixels."""
  quantile = -statistics.NormalDist().inv_cdf(tail)
  return min(size, int(quantile * size**0.5) + 16)


def blind_level(counted: Counted, probs: jax.Array, smooth: float) -> Callable:
  """The level(count, total) of `cuts.search` above which one more pixel raises BA's score.

  probs: [R,W] from low on. BA's score of n pixels with probabilities C in sum is

    C E[2 / (Gamma + n + smooth + 1)] + smooth E[1 / (Gamma + n + smooth)].
  """
  counts = counted.low[:, None] + jnp.arange(probs.shape[-1]) + jnp.float32(smooth)

  def level(count: jax.Array, total: jax.Array) -> jax.Array:
    size = counts + count[:, None]
    after = (probs / (size + 2)).sum(-1)
    lost = total * (probs / ((size + 1) * (size + 2))).sum(-1)
    if smooth > 0:
      lost += 0.5 * smooth * (probs / (size * (size + 1))).sum(-1)
    return lost / after

  return level


def blind_score(
  counted: Counted, probs: jax.Array, smooth: float, count: jax.Array, total: jax.Array
) -> jax.Array:
  """BA's score [R]; of no pixel 0 without `smooth`, where the original divides 0 by 0."""
  size = counted.low[:, None] + jnp.arange(probs.shape[-1]) + count[:, None] + jnp.float32(smooth)
  score = total * (2 * probs / (size + 1)).sum(-1)
  return score + smooth * (probs / size).sum(-1) if smooth > 0 else score


class _Best(NamedTuple):
  tau: jax.Array  # [R]
  score: jax.Array  # [R]
  taken: jax.Array  # [R,W], sum over the pixels so far of p times the pmf without them


class _Terms(NamedTuple):
  """What T-RNA's score is made of; all: the pmf [R,W] of all pixels' count."""

  counted: Counted
  all: jax.Array
  smooth: float
  offset: int
  smooth_without: bool


def refined_tau(
  ordered: jax.Array,
  counted: Counted,
  limit: jax.Array,
  width: int,
  *,
  smooth: float,
  offset: int,
  smooth_without: bool = False,
) -> jax.Array:
  """int32 [R], which of tau = 0..limit has the highest score of T-RNA, the first of equal ones.

  ordered: [R,P], descending; limit: int32 [R], up to P; width: a bound of up - low. offset: added
  to the denominators of the definition, 1 in the original's code. smooth_without: the smoothing
  term is of the count without the pixel, as in the successor.
  """
  ranks = ordered.shape[-1]
  width += -width % _COUNTS
  padded = jnp.pad(ordered, ((0, 0), (0, -ranks % _RANKS)))
  every = counted.pmf(width)
  terms = _Terms(counted, every, smooth, offset, smooth_without)
  # for a row that looks at nothing nothing is computed
  extent = jnp.where(limit > 0, counted.up - counted.low, 0).max()
  parts = (jnp.clip(extent, 0, width) + _COUNTS - 1) // _COUNTS

  def step(index: jax.Array, best: _Best) -> _Best:
    probs = lax.dynamic_slice_in_dim(padded, index * _RANKS, _RANKS, 1)
    tau = index * _RANKS + 1 + jnp.arange(_RANKS)
    score, taken = _refined_scores(terms, probs, tau, parts, best.taken)
    # a NaN never wins in the original
    score = jnp.where(jnp.isnan(score) | (tau > limit[:, None]), -1, score)
    first, highest = score.argmax(-1).astype(jnp.int32), score.max(-1)
    is_better = highest > best.score
    tau = jnp.where(is_better, index * _RANKS + 1 + first, best.tau)
    return _Best(tau, jnp.where(is_better, highest, best.score), taken)

  zero = 0 * ordered[:, 0]  # which inside shard_map varies as the rows do
  start = blind_score(counted, every, smooth, zero, zero)  # both scores are the same there
  best = _Best(zero.astype(jnp.int32), start, jnp.zeros(width) + zero[:, None])
  return lax.fori_loop(0, (limit.max() + _RANKS - 1) // _RANKS, step, best).tau


def _refined_scores(
  terms: _Terms, probs: jax.Array, tau: jax.Array, parts: jax.Array, taken: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """(score [R,T] of T ranks tau with probabilities [R,T], what is taken [R,W] after them).

  The domain is gone through in parts, as many as the widest row needs: once for the sum of each
  pixel's pmf, and once for the scores.
  """
  counted, smooth = terms.counted, terms.smooth
  without = jax.tree.map(lambda x: x[:, None], counted.moments).without(probs)

  def part(index: jax.Array) -> jax.Array:
    low = (counted.low + index * _COUNTS)[:, None] + jnp.zeros_like(tau)
    return pmf(without, low, _COUNTS, counted.up[:, None], counted.clip_cdf)

  total = lax.fori_loop(0, parts, lambda i, sum: sum + part(i).sum(-1), 0 * probs)

  def add(index: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    score, taken = carry
    start = index * _COUNTS
    each = part(index) / total[..., None]
    before = lax.dynamic_slice_in_dim(taken, start, _COUNTS, 1)
    inside = before[:, None] + jnp.cumsum(probs[..., None] * each, 1)
    counts = (counted.low + start)[:, None] + jnp.arange(_COUNTS)
    size = counts[:, None] + (tau + terms.offset)[:, None] + jnp.float32(smooth)
    score += (2 * inside / (size + 1)).sum(-1)
    if smooth > 0:
      every = lax.dynamic_slice_in_dim(terms.all, start, _COUNTS, 1)[:, None]
      score += smooth * ((each if terms.smooth_without else every) / size).sum(-1)
    return score, lax.dynamic_update_slice_in_dim(taken, inside[:, -1], start, 1)

  return lax.fori_loop(0, parts, add, (0 * probs, taken))
