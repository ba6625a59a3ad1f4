"""Losses that choose pixels, or weigh them, by how hard they are."""

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.collectives import device_count, psum
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.order import kth_smallest
from semiseg_jax.losses.pixel import (
  cross_entropy,
  mean_where,
  weight_of_label,
  weighted_cross_entropy,
)
from semiseg_jax.schedules import log_ramp_up

# Cityscapes' 19, as C3-SemiSeg has them for `ohem_loss`.
CITYSCAPES_WEIGHTS = (
  *(0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023),
  *(0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
)

FOCAL_MEANS = ("broadcast", "valid", "all")


def ohem_loss(
  logits: jax.Array,
  labels: jax.Array,
  threshold: float = 0.6,
  min_kept: int = 256,
  class_weights: jax.Array | None = None,
  axis_name: str | None = None,
) -> jax.Array:
  """Mean cross-entropy over the labelled pixels whose label has a probability <= threshold.

  If they are fewer than min_kept, over the min_kept hardest, those equal to the last included; over
  all labelled pixels if these are fewer, or min_kept is 0. All numbers are of the global batch. NaN
  with a gradient of zero without a labelled pixel.

  logits: [B,H,W,C]; labels: [B,H,W] int32; class_weights: [C], of a weighted mean.
  Source: C3-SemiSeg, `utils/losses.py`.
  """
  valid = labels != IGNORE
  kept = valid
  if min_kept:
    prob = prob_of_label(logits, labels)
    reach = jnp.maximum(kth_smallest(jnp.where(valid, prob, 1), min_kept, axis_name), threshold)
    kept &= (prob <= reach) | (psum(valid.sum(), axis_name) < min_kept)
  weight = 1.0 if class_weights is None else weight_of_label(labels, class_weights)
  weight = jnp.where(kept, weight, 0)
  own = (weight * cross_entropy(logits, labels)).sum(), weight.sum()
  total, total_weight = psum(own, axis_name)
  return jnp.where(total_weight > 0, total / jnp.where(total_weight > 0, total_weight, 1), jnp.nan)


def annealed_loss(
  logits: jax.Array,
  labels: jax.Array,
  threshold: jax.Array | float,
  min_kept: int = 1,
  class_weights: jax.Array | None = None,
  axis_name: str | None = None,
) -> jax.Array:
  """Mean cross-entropy over `annealed_selection`; 0 if it is empty.

  Shapes as in `ohem_loss`; the class weights are not part of the mean's divisor.
  Source: C3-SemiSeg, `utils/losses.py`.
  """
  selected = annealed_selection(logits, labels, threshold, min_kept, axis_name)
  loss = weighted_cross_entropy(logits, labels, class_weights)
  return mean_where(loss, selected, axis_name)


def annealed_selection(
  logits: jax.Array,
  labels: jax.Array,
  threshold: jax.Array | float,
  min_kept: int,
  axis_name: str | None = None,
) -> jax.Array:
  """The labelled pixels, [B,H,W] bool, whose label has a probability < threshold.

  The threshold is at least the probability of the pixel that has min_kept easier or equal ones
  before it per image of the global batch, or of the easiest of all where there are not so many.
  """
  valid, prob = labels != IGNORE, prob_of_label(logits, labels)
  before = jnp.minimum(
    min_kept * labels.shape[0] * device_count(axis_name), psum(valid.sum(), axis_name) - 1
  )
  least = kth_smallest(jnp.where(valid, prob, 1), before + 1, axis_name)
  return valid & (prob < jnp.maximum(threshold, least))


def rising_threshold(step: jax.Array, ramp_steps: float, num_classes: int) -> jax.Array:
  """Of `annealed_loss`: from 1/num_classes to almost 0.9, along `log_ramp_up`."""
  return log_ramp_up(step, ramp_steps) * (0.9 - 1 / num_classes) + 1 / num_classes


def focal_loss(
  logits: jax.Array,
  labels: jax.Array,
  gamma: float = 0.5,
  class_weights: jax.Array | None = None,
  mean: str = "broadcast",
  axis_name: str | None = None,
) -> jax.Array:
  """Mean of `focal_terms` over the global batch; 0 without a labelled pixel.

  mean: over the labelled pixels ("valid"); that with each image's terms under the mask of every
  image of the batch, about B times as much ("broadcast", C3-SemiSeg's code); or over all pixels,
  ignored ones too ("all", pytorch-segmentation's). Shapes as in `ohem_loss`.
  """
  terms = focal_terms(logits, labels, gamma, class_weights)
  valid = (labels != IGNORE).astype(jnp.float32)
  weight = psum(valid.sum(axis=0), axis_name) if mean == "broadcast" else valid  # [H,W] or [B,H,W]
  total, count = psum(((weight * terms).sum(), valid.sum()), axis_name)
  if mean == "all":
    count = labels.size * device_count(axis_name)
  return total / jnp.maximum(count, 1)


def focal_terms(
  logits: jax.Array, labels: jax.Array, gamma: float, class_weights: jax.Array | None = None
) -> jax.Array:
  """`focal` of each pixel's weighted cross-entropy, [B,H,W]; 0 where there is no label."""
  return focal(weighted_cross_entropy(logits, labels, class_weights), gamma)


def focal(loss: jax.Array, gamma: float) -> jax.Array:
  """(1 - exp(-loss))^gamma loss of losses >= 0, with a gradient of 0 at 0."""
  some = loss > 0
  loss = jnp.where(some, loss, 1)  # the power's derivative at 0 may be infinite
  return jnp.where(some, (-jnp.expm1(-loss)) ** gamma * loss, 0)


def prob_of_label(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """The label's probability at each pixel, [B,H,W] without gradient; 1 where there is no label."""
  return lax.stop_gradient(jnp.exp(-cross_entropy(logits, labels)))
