"""Masks and labels by the reciprocal moment approximation (RMA), for Dice and for IoU.

It takes E[1 / Gamma] for 1 / E[Gamma]. With mu = E[Gamma], n pixels whose probabilities add up to C
and the smoothing s, Dice becomes 2 C / (mu + n + 1 + s) + s / (mu + n + s) and IoU becomes
(C + s) / (mu - C + n + s). From the package `rankseg` (NeurIPS 2025).
"""

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.rankdice.cuts import Cut, cut_above, search, where
from semiseg_jax.rankdice.rows import row_sums
from semiseg_jax.rankdice.settings import RankDice


def reciprocal(rows: jax.Array, peak: jax.Array, how: RankDice) -> Cut:
  """The cut of each of the rows [R,P], of one pixel at least; peak: [R], their maxima."""
  mean, smooth = row_sums(rows, jnp.asarray)[0], how.smooth

  def dice_level(count: jax.Array, total: jax.Array) -> jax.Array:
    size = mean + count + 1 + smooth
    level = total / size
    if smooth > 0:
      level += 0.5 * smooth * (size + 1) / (size * (size - 1))
    return level

  def iou_level(count: jax.Array, total: jax.Array) -> jax.Array:
    size = mean + count + 2 * smooth
    return (total + smooth) / jnp.where(size > 0, size, 1)

  level = dice_level if how.metric == "dice" else iou_level
  cut = cut_above(rows, search(rows, level, 0.5 * peak))
  is_none = cut.tau == 0
  return lax.cond(
    is_none.any(), lambda cut: where(is_none, _first(rows, peak), cut), lambda cut: cut, cut
  )


def _first(rows: jax.Array, peak: jax.Array) -> Cut:
  """The cut after one pixel."""
  is_peak = rows == peak[:, None]
  next_ = jnp.where(is_peak, -1, rows).max(-1)
  is_tied = is_peak.sum(-1) > 1
  one = jnp.ones(peak.shape, jnp.int32)
  return Cut(one, jnp.where(is_tied, peak, next_), is_tied.astype(jnp.int32))


def one_class_each(
  probs: jax.Array,
  masks: jax.Array,
  is_active: jax.Array,
  how: RankDice,
  unclaimed: int | None,
) -> jax.Array:
  """int32 [N,P] of probabilities and masks [N,P,K] of the classes that are active, bool [N,K]."""
  claims = masks.sum(-1, keepdims=True)
  safe = masks & (claims == 1)
  count = safe.sum(1, keepdims=True)
  total = jnp.where(safe, probs, 0).sum(1, keepdims=True) + how.smooth
  size = count + probs.sum(1, keepdims=True) + how.smooth
  if how.metric == "dice":
    size += 1
    gain = 2 * ((total + probs) / (size + 1) - total / size)
  else:
    size -= total - how.smooth
    gain = (total + probs) / (size - probs + 1) - total / size
  best = jnp.where(is_active[:, None], gain, -jnp.inf).argmax(-1)
  label = jnp.where(claims[..., 0] == 1, masks.argmax(-1), best)
  if unclaimed is not None:
    label = jnp.where(claims[..., 0] == 0, unclaimed, label)
  return label.astype(jnp.int32)
