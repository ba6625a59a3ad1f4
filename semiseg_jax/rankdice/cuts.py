"""Finds where to cut probabilities, without sorting them.

The pixels above a threshold t have a number n(t) and a sum C(t) of probabilities. The scores that
are ranked here rise with the next pixel while its probability is above a level r(n, C), and fall
from then on; so the best cut is where t = r(n(t), C(t)). At the best cut r does not change with t
to first order, so that t <- r(n(t), C(t)) doubles its digits each time (Dinkelbach's method).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.rankdice.rows import row_max, row_sums

_PASSES = 64  # at most; a handful is usual
_CLOSE = 1e-6  # relative; pixels this near to the best threshold may as well be in as out
_STRIDE = 16  # of the pixels among which a search begins
_MANY = 2**14  # pixels from which on it does
_BLOCK = 32  # pixels that are left out together where their largest is not among the top


class Cut(NamedTuple):
  """The `tau` most probable pixels of each row; arrays of one shape.

  tau: int32. cutpoint: float32, the largest probability left out (below 0 if none is). extra:
  int32, how many pixels of exactly this probability are among the tau, the first in the image.
  """

  tau: jax.Array
  cutpoint: jax.Array
  extra: jax.Array


class Found(NamedTuple):
  """A threshold of each row, and the number (a float32) and sum of the probabilities above it."""

  threshold: jax.Array
  count: jax.Array
  total: jax.Array


Level = Callable[[jax.Array, jax.Array], jax.Array]


def search(probs: jax.Array, level: Level, start: jax.Array) -> Found:
  """The threshold of each row of [R,P] at which level(count, total) is the threshold again.

  level: float32 [R], [R] -> [R]. start: [R], where to begin. P: up to 2^24.
  """
  if probs.shape[-1] >= _MANY:
    few = probs[:, ::_STRIDE]
    share = probs.shape[-1] / few.shape[-1]
    start = _iterate(few, lambda n, c: level(n * share, c * share), start).threshold
  return _iterate(probs, level, start)


class _State(NamedTuple):
  found: Found
  low: Found  # the best threshold is above
  high: Found  # or at this one, or below
  settled: jax.Array
  passes: jax.Array


def _iterate(probs: jax.Array, level: Level, start: jax.Array) -> Found:
  nothing = 0 * start  # which inside shard_map varies as start does
  low = Found(nothing - 1, nothing + probs.shape[-1], nothing)
  high = Found(nothing + 2, nothing, nothing)
  settled = start < start
  first = _State(Found(start, nothing, nothing), low, high, settled, jnp.int32(0))

  def goes_on(state: _State) -> jax.Array:
    return ~state.settled.all() & (state.passes < _PASSES)

  def step(state: _State) -> _State:
    threshold = state.found.threshold
    found = above(probs, threshold)
    wanted = level(found.count, found.total)
    low = where(wanted > threshold, found, state.low)
    high = where(wanted > threshold, state.high, found)
    inside = (wanted > low.threshold) & (wanted < high.threshold)
    middle = 0.5 * (low.threshold + high.threshold)
    # where rounding lets two cuts point at one another, nothing lies between them in the end
    is_narrow = (middle <= low.threshold) | (middle >= high.threshold)
    is_close = jnp.abs(wanted - threshold) <= _CLOSE * threshold
    settled = state.settled | is_close | (~inside & is_narrow)
    wanted = jnp.where(inside, wanted, middle)
    moved = found._replace(threshold=jnp.where(settled, threshold, wanted))
    return _State(moved, low, high, settled, state.passes + 1)

  return lax.while_loop(goes_on, step, first).found


def above(probs: jax.Array, threshold: jax.Array) -> Found:
  """Counts and adds up the probabilities of each row [R,P] above its threshold [R]."""
  level = threshold[:, None]
  count = lambda part: (part > level).astype(jnp.float32)
  total = lambda part: jnp.where(part > level, part, 0)
  return Found(threshold, *row_sums(probs, count, total))


def cut_above(probs: jax.Array, found: Found) -> Cut:
  """The cut of all pixels above a threshold."""
  level = found.threshold[:, None]
  below = row_max(probs, lambda part: jnp.where(part <= level, part, -1))
  tau = found.count.astype(jnp.int32)
  return Cut(tau, below, jnp.zeros_like(tau))


def cut_ordered(ordered: jax.Array, tau: jax.Array) -> Cut:
  """The cut after `tau` int32 [...] of values [..., P] that descend; the rest is below them."""
  padded = jnp.concatenate([ordered, jnp.full_like(ordered[..., :1], -1)], -1)
  cutpoint = jnp.take_along_axis(padded, tau[..., None], -1)
  return Cut(tau, cutpoint[..., 0], tau - (ordered > cutpoint).sum(-1))


def one_less(probs: jax.Array, cut: Cut) -> Cut:
  """A cut without its least probable pixel, the last of these in the image."""
  is_taken = (probs > cut.cutpoint[:, None]) & (cut.tau > 0)[:, None]
  least = jnp.where(is_taken, probs, 2).min(-1)
  tau = cut.tau - 1
  return Cut(tau, least, tau - above(probs, least).count.astype(jnp.int32))


def masks(probs: jax.Array, rows: jax.Array, cut: Cut) -> jax.Array:
  """bool [N,P,K] of probabilities [N,P,K], also as rows [N*K,P], and cuts [N*K]: their pixels."""
  per_class = lambda x: x.reshape(probs.shape[0], 1, probs.shape[-1])
  level = per_class(jnp.where(cut.tau > 0, cut.cutpoint, 2))

  def with_ties() -> jax.Array:
    last = per_class(_last_equal(rows, cut))
    index = jnp.arange(probs.shape[1])[:, None]
    return (probs > level) | ((probs == level) & (index <= last))

  return lax.cond((cut.extra > 0).any(), with_ties, lambda: probs > level)


def _last_equal(rows: jax.Array, cut: Cut) -> jax.Array:
  """int32 [R], where the last of the `extra` pixels equal to the cutpoint is; -1 without any."""
  rank = jnp.cumsum(rows == cut.cutpoint[:, None], -1, dtype=jnp.int32)
  return (rank < cut.extra[:, None]).sum(-1) - (cut.extra == 0)


def largest(probs: jax.Array, count: int) -> jax.Array:
  """The `count` largest of each row [R,P], descending: float32 [R,count].

  They lie in the `count` blocks of pixels with the largest maxima, which is far less to order.
  """
  rows, size = probs.shape
  if size <= 2 * _BLOCK * count:
    return lax.top_k(probs, count)[0]
  padded = jnp.pad(probs, ((0, 0), (0, -size % _BLOCK)), constant_values=-1)
  blocks = padded.reshape(rows, _BLOCK, -1)  # of pixels far apart, so that maxima are elementwise
  chosen = lax.top_k(blocks.max(1), count)[1]
  among = jnp.take_along_axis(blocks, chosen[:, None], 2)
  return lax.top_k(among.reshape(rows, -1), count)[0]


def where(condition: jax.Array, yes: NamedTuple, no: NamedTuple) -> NamedTuple:
  """Of each array that of `yes` or of `no`."""
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
