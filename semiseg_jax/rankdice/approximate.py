"""RankDice by blind (BA) and by truncated refined normal approximation (T-RNA)."""

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.rankdice.cuts import (
  Cut,
  Found,
  above,
  cut_above,
  cut_ordered,
  largest,
  one_less,
  search,
  where,
)
from semiseg_jax.rankdice.normal_scores import (
  Counted,
  blind_level,
  blind_score,
  refined_tau,
  widest,
)
from semiseg_jax.rankdice.refined_normal import domain, moments
from semiseg_jax.rankdice.rows import count_confident, row_sums
from semiseg_jax.rankdice.settings import RankDice

_FEW = 50  # mean count of a class up to which BA gives way to T-RNA
_FEW_RANKS = 5 * _FEW + 2  # then so many pixels matter, one more than may be taken
_CERTAIN = 1e-7  # variance below which there is nothing to approximate
_LARGE = 5.0  # deviation from which "ba+trna" takes BA
_BELOW_HALF = 0.5 - 2.0**-25  # the float32 before
_NOTHING = 2.0  # a threshold above every probability
_GUARD = 1e-5  # in the bound of the search


def approximate(rows: jax.Array, peak: jax.Array, is_active: jax.Array, how: RankDice) -> Cut:
  """The cut of each of the rows [R,P]; peak, is_active: [R], their maxima, where not pruned."""
  counted = _counted(rows, how)
  pmf = counted.pmf(widest(rows.shape[-1], _tail(how)))
  mean, variance, _ = counted.moments
  is_certain = variance < _CERTAIN
  is_empty = ~(pmf.sum(-1) > 0)  # NaN: all scores are, in the originals
  is_few = (mean <= _FEW) & (how.form != "successor")
  is_blind = ~is_few & _takes_blind(variance, how)

  level = blind_level(counted, pmf, how.smooth)
  fixed = jnp.where(is_active & (is_certain | is_empty), _BELOW_HALF, _NOTHING)
  is_sought = is_active & is_blind & ~is_certain & ~is_empty
  found = search(
    rows,
    lambda count, total: jnp.where(is_sought, level(count, total), fixed),
    jnp.where(is_sought, 0.5 * peak, fixed),
  )
  cut = cut_above(rows, found)
  if how.smooth > 0:
    zero = jnp.zeros_like(peak)
    at_zero = blind_score(counted, pmf, how.smooth, zero, zero)
    is_none = blind_score(counted, pmf, how.smooth, found.count, found.total) <= at_zero
    cut = where(is_sought & is_none, _none(peak), cut)
  is_bound = is_active & is_blind & ~is_certain
  cut = _bounded(rows, found, cut, counted, is_bound, how)

  if how.form in ("root", "fork"):
    is_nan = is_active & ~is_blind & is_empty & ~is_certain
    cut = where(is_nan, _none(peak), cut)
  is_refined = is_active & ~is_blind & ~is_certain & ~is_empty
  refine = _refine_few if how.solver == "ba" else _refine
  return lax.cond(
    is_refined.any(),
    lambda cut: where(is_refined, refine(rows, counted, is_few, is_refined, how), cut),
    lambda cut: cut,
    cut,
  )


def _tail(how: RankDice) -> float:
  return 0.5 * how.tail if how.form == "successor" else how.tail


def _counted(rows: jax.Array, how: RankDice) -> Counted:
  count = moments(rows)
  is_successor = how.form == "successor"
  if how.truncate_mean:  # the variance stays that of the probabilities, in the originals
    count = count._replace(mean=count_confident(rows))
  if is_successor:
    count = count._replace(variance=jnp.maximum(count.variance, jnp.finfo(jnp.float32).eps))
  shift = {} if not is_successor else {"skew_shift": 0.0}
  low, up = domain(count, rows.shape[-1], _tail(how), **shift)
  return Counted(count, low, up, clip_cdf=is_successor)


def _takes_blind(variance: jax.Array, how: RankDice) -> jax.Array:
  if how.solver == "ba+trna":
    return jnp.sqrt(variance) > _LARGE
  return jnp.full(variance.shape, how.solver == "ba")


def _none(peak: jax.Array) -> Cut:
  nothing = jnp.zeros(peak.shape, jnp.int32)
  return Cut(nothing, peak, nothing)


def _bounded(
  rows: jax.Array,
  found: Found,
  cut: Cut,
  counted: Counted,
  is_bound: jax.Array,
  how: RankDice,
) -> Cut:
  """The cut within the originals' bound of the search.

  The bound i is the first with C_i > (p_{i+1} + 1e-5) (i + smooth + P), and i - 1 pixels may be
  taken. The best cut is never beyond i; so all that the bound does is to cost it its last pixel, or
  to end the search below the domain. To know the former takes no search for i.
  """
  size = rows.shape[-1]
  ahead = (jnp.maximum(cut.cutpoint, 0) + _GUARD) * (cut.tau + how.smooth + size)
  is_last = (cut.tau == size) | ((cut.tau > 1) & (found.total > ahead))
  if not how.whole:
    is_less = is_bound & is_last
    cut = lax.cond(is_less.any(), lambda c: where(is_less, one_less(rows, c), c), lambda c: c, cut)
  if how.form == "successor":
    return cut
  # the bound is above the domain where so many pixels are more probable than it can ask of any
  most = row_sums(rows, jnp.asarray)[0] / (how.smooth + size) - _GUARD
  is_open = is_bound & (cut.tau <= counted.low)
  is_open = lax.cond(
    is_open.any(),
    lambda: is_open & (above(rows, most).count < counted.low + 2),
    lambda: is_open,
  )
  return lax.cond(is_open.any(), lambda: _at_bound(rows, cut, counted, is_open, how), lambda: cut)


def _at_bound(
  rows: jax.Array, cut: Cut, counted: Counted, is_bound: jax.Array, how: RankDice
) -> Cut:
  """Where the bound is not above the domain, the cut there."""
  size = rows.shape[-1]

  def level(count: jax.Array, total: jax.Array) -> jax.Array:
    bound = total / (count + how.smooth + size) - _GUARD
    return jnp.where(is_bound, jnp.maximum(bound, 0), _NOTHING)

  bound = cut_above(rows, search(rows, level, jnp.where(is_bound, cut.cutpoint, _NOTHING)))
  if not how.whole:
    bound = where(bound.tau > 1, one_less(rows, bound), bound._replace(tau=cut.tau + size))
  none = Cut(*(jnp.zeros_like(x) for x in cut))
  return where(is_bound & (bound.tau <= counted.low), none if how.form == "fork" else bound, cut)


def _refine_few(rows: jax.Array, counted: Counted, is_few, is_refined, how: RankDice) -> Cut:
  """T-RNA of rows of which few pixels matter."""
  ordered = largest(rows, min(_FEW_RANKS, rows.shape[-1]))
  return _refine_ordered(ordered, rows, counted, _few_limit(rows, counted), is_refined, how)


def _refine(rows: jax.Array, counted: Counted, is_few, is_refined, how: RankDice) -> Cut:
  """T-RNA of any rows."""
  size = rows.shape[-1]
  ordered = lax.rev(lax.sort(rows, dimension=1), (1,))
  index = jnp.arange(1, size)
  ahead = (ordered[:, 1:] + _GUARD) * (index + how.smooth + size)
  is_beyond = jnp.cumsum(ordered, -1)[:, :-1] > ahead
  bound = jnp.where(is_beyond.any(-1), is_beyond.argmax(-1).astype(jnp.int32) + 1, size)
  if not how.whole:
    bound = jnp.where(bound > 1, bound - 1, size - 1)
  limit = jnp.where(is_few, _few_limit(rows, counted), bound)
  cut = _refine_ordered(ordered, rows, counted, limit, is_refined, how)
  if how.form == "successor":
    return cut
  at_limit = cut_ordered(ordered, limit)
  if how.form == "fork":
    at_limit = Cut(*(jnp.zeros_like(x) for x in cut))
  return where(limit <= counted.low, at_limit, cut)


def _few_limit(rows: jax.Array, counted: Counted) -> jax.Array:
  limit = jnp.floor(5 * counted.moments.mean + 1).astype(jnp.int32)
  return jnp.minimum(limit, rows.shape[-1])  # beyond the image, where the originals crash


def _refine_ordered(ordered, rows, counted, limit, is_refined, how: RankDice) -> Cut:
  tau = refined_tau(
    ordered,
    counted,
    jnp.where(is_refined, limit, 0),
    widest(rows.shape[-1], _tail(how)),
    smooth=how.smooth,
    offset=how.trna_offset,
    smooth_without=how.form == "successor",
  )
  return cut_ordered(ordered, tau)
