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

from semiseg_jax.evaluation.refined_normal import Moments, pmf

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

  def pmf(self, size: int, tail: float) -> jax.Array:
    """float32 [R,W] of low, low + 1, ..., adding up to 1; NaN where the domain holds nothing."""
    probs = pmf(self.moments, self.low, widest(size, tail), self.up, self.clip_cdf)
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


def refined_cut(
  ordered: jax.Array,
  counted: Counted,
  limit: jax.Array,
  size: int,
  tail: float,
  *,
  smooth: float,
  offset: int,
  smooth_without: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """(tau int32 [R], score float32 [R]) that maximise T-RNA's score among tau = 0..limit.

  ordered: [R,P], descending, of which at most `limit` int32 [R] are looked at. offset: added to the
  denominators of the definition, 1 in the original's code. smooth_without: the smoothing term is of
  the count without the pixel, as in the successor. A row whose domain holds nothing has score 0.
  """
  rows, ranks = ordered.shape
  width = -(-widest(size, tail) // _COUNTS) * _COUNTS
  padded = jnp.pad(ordered, ((0, 0), (0, -ranks % _RANKS)))
  # of a row that looks at nothing, nothing is computed
  extent = jnp.where(limit > 0, counted.up - counted.low, 0).max()
  parts = (jnp.clip(extent, 0, width) + _COUNTS - 1) // _COUNTS
  of_all = pmf(counted.moments, counted.low, width, counted.up, counted.clip_cdf)
  of_all /= of_all.sum(-1, keepdims=True)
  columns = jnp.arange(_COUNTS)

  def step(index: jax.Array, best: _Best) -> _Best:
    probs = lax.dynamic_slice_in_dim(padded, index * _RANKS, _RANKS, 1)
    tau = index * _RANKS + 1 + jnp.arange(_RANKS)
    without = jax.tree.map(lambda x: x[:, None], counted.moments).without(probs)

    def part(start: jax.Array) -> jax.Array:
      low = (counted.low + start * _COUNTS)[:, None] + jnp.zeros_like(tau)
      return pmf(without, low, _COUNTS, counted.up[:, None], counted.clip_cdf)

    total = lax.fori_loop(0, parts, lambda i, t: t + part(i).sum(-1), jnp.zeros_like(probs))

    def add(i: jax.Array, carry: tuple) -> tuple:
      score, taken = carry
      each = part(i) / total[..., None]
      before = lax.dynamic_slice_in_dim(taken, i * _COUNTS, _COUNTS, 1)
      inside = before[:, None] + jnp.cumsum(probs[..., None] * each, 1)
      counts = (counted.low + i * _COUNTS)[:, None] + columns
      denominator = counts[:, None] + (tau + offset)[:, None] + jnp.float32(smooth)
      score += (2 * inside / (denominator + 1)).sum(-1)
      if smooth > 0:
        every = lax.dynamic_slice_in_dim(of_all, i * _COUNTS, _COUNTS, 1)[:, None]
        score += smooth * ((each if smooth_without else every) / denominator).sum(-1)
      return score, lax.dynamic_update_slice_in_dim(taken, inside[:, -1], i * _COUNTS, 1)

    score, taken = lax.fori_loop(0, parts, add, (jnp.zeros_like(probs), best.taken))
    # a NaN never wins in the original
    score = jnp.where(jnp.isnan(score) | (tau > limit[:, None]), -1, score)
    first = score.argmax(-1)
    highest = jnp.take_along_axis(score, first[:, None], -1)[:, 0]
    is_better = highest > best.score
    return _Best(
      jnp.where(is_better, index * _RANKS + 1 + first.astype(jnp.int32), best.tau),
      jnp.where(is_better, highest, best.score),
      taken,
    )

  start = jnp.zeros(rows, jnp.float32)
  if smooth > 0:
    start += blind_score(counted, of_all, smooth, start, start)
  best = _Best(jnp.zeros(rows, jnp.int32), start, jnp.zeros((rows, width), jnp.float32))
  best = lax.fori_loop(0, (limit.max() + _RANKS - 1) // _RANKS, step, best)
  return best.tau, best.score
