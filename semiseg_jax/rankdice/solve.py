"""RankDice: the mask of each class that has the highest expected Dice (Dai & Li, JMLR 2023).

masks, tau, cutpoint = rank_dice(jax.nn.softmax(logits))

A pixel's label is taken for independent of other pixels', and every image and class is decided on
its own: masks of several classes may overlap, and a pixel may be in none. `rank_labels` gives one
class to each pixel.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.rankdice.approximate import approximate
from semiseg_jax.rankdice.cuts import Cut, cut_ordered, masks
from semiseg_jax.rankdice.expected_dice import expected_dice
from semiseg_jax.rankdice.reciprocal import one_class_each, reciprocal
from semiseg_jax.rankdice.rows import count_confident, row_max, to_rows
from semiseg_jax.rankdice.settings import RankDice


class Decision(NamedTuple):
  """masks: bool [N,H,W,K]. tau: int32 [N,K], their sizes. cutpoint: float32 [N,K].

  The cutpoint is the largest probability outside of the mask, 0 where there is none and where the
  class was pruned. Where some of several equal pixels are taken, they are the image's first.
  """

  masks: jax.Array
  tau: jax.Array
  cutpoint: jax.Array


def rank_dice(probs: jax.Array, solver: str = "ba", **settings) -> Decision:
  """Decides each class of probabilities [N,H,W,K], softmax or sigmoid, as `RankDice` says.

  On the device, all images and classes at once, inside or outside jit. Any number of spatial axes
  will do. Raises ValueError for settings that don't go together.
  """
  return decide_masks(probs, RankDice(solver, **settings))


def rank_labels(
  probs: jax.Array,
  *,
  metric: str = "dice",
  smooth: float = 0.0,
  pruning: float | None = 0.5,
  unclaimed: int | None = None,
) -> jax.Array:
  """One class for each pixel, int32 [N,H,W], from masks by reciprocal moments ("rma").

  A pixel in one mask alone gets its class; one in several the class, of any that is not pruned,
  whose score it raises most, and so does one in none, or else the number `unclaimed`. The other
  solvers have no such rule: they are refused, as by their authors' package.
  """
  return decide_labels(probs, RankDice("rma", metric, smooth, pruning), unclaimed)


@functools.partial(jax.jit, static_argnums=1)
def decide_masks(probs: jax.Array, how: RankDice) -> Decision:
  """`rank_dice` with its settings in one."""
  rows = to_rows(probs)
  cut = _cut(rows, how)[0]
  images, classes = probs.shape[0], probs.shape[-1]
  pixels = probs.reshape(images, -1, classes).astype(jnp.float32)
  inside = masks(pixels, rows, cut).reshape(probs.shape)
  per_class = lambda x: x.reshape(images, classes)
  # a cutpoint below 0 says that no pixel is left
  return Decision(inside, per_class(cut.tau), per_class(jnp.maximum(cut.cutpoint, 0)))


@functools.partial(jax.jit, static_argnums=(1, 2))
def decide_labels(probs: jax.Array, how: RankDice, unclaimed: int | None = None) -> jax.Array:
  """`rank_labels` with its settings in one; raises ValueError for a solver other than "rma"."""
  if how.solver != "rma":
    raise ValueError(f"solver {how.solver!r} gives masks that overlap; labels need 'rma'")
  rows = to_rows(probs)
  cut, is_active = _cut(rows, how)
  images, *shape, classes = probs.shape
  pixels = probs.reshape(images, -1, classes).astype(jnp.float32)
  inside = masks(pixels, rows, cut)
  labels = one_class_each(pixels, inside, is_active.reshape(images, classes), how, unclaimed)
  return labels.reshape(images, *shape)


def _cut(rows: jax.Array, how: RankDice) -> tuple[Cut, jax.Array]:
  """The cut of each row, and bool [R], where it was not pruned."""
  peak = row_max(rows)
  is_active = _is_active(rows, peak, how)
  if how.solver == "exact":
    ordered = lax.rev(lax.sort(rows, dimension=1), (1,))
    tau = expected_dice(ordered, how.smooth).argmax(-1)
    cut = cut_ordered(ordered, tau.astype(jnp.int32))
  elif how.solver == "rma":
    cut = reciprocal(rows, peak, how)
  else:
    cut = approximate(rows, peak, is_active, how)
  return Cut(*(jnp.where(is_active, x, 0) for x in cut)), is_active


def _is_active(rows: jax.Array, peak: jax.Array, how: RankDice) -> jax.Array:
  if how.pruning is None:
    return jnp.ones(peak.shape, bool)
  if how.form == "fork":
    return count_confident(rows) > how.gap
  return peak >= how.pruning if how.form == "successor" else peak > how.pruning
