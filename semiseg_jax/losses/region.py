"""Losses of whole regions: Dice over all classes and pixels at once, and Lovász's of the IoU."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.collectives import device_count, device_index, psum
from semiseg_jax.labels import IGNORE


def dice_loss(
  logits: jax.Array,
  labels: jax.Array,
  smooth: float = 1.0,
  ignored_as_smallest: bool = True,
  axis_name: str | None = None,
) -> jax.Array:
  """1 - (2 sum p o + smooth) / (sum p + sum o + smooth), o one-hot, over the global batch.

  0 without a labelled pixel. ignored_as_smallest: pixels without a label count as the smallest
  label that there is, as the originals have it; else they are left out.

  logits: [B,H,W,C]; labels: [B,H,W] int32.
  Source: C3-SemiSeg and pytorch-segmentation, `DiceLoss`.
  """
  probs = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
  is_label = labels[..., None] == jnp.arange(probs.shape[-1])
  valid = (labels != IGNORE)[..., None]
  over_pixels = lambda x: x.sum(axis=(0, 1, 2), dtype=jnp.float32)
  own = (is_label, jnp.where(is_label, probs, 0), jnp.where(valid, probs, 0))
  own += (jnp.where(valid, 0, probs), ~valid)
  counts, hit, predicted, ignored, num_ignored = psum(tuple(map(over_pixels, own)), axis_name)
  both, size = hit.sum(), predicted.sum() + counts.sum()
  if ignored_as_smallest:
    both += ignored[jnp.argmax(counts > 0)]
    size += ignored.sum() + num_ignored[0]
  return dice_distance(both, size, smooth, counts.sum() > 0)


def dice_distance(both: jax.Array, size: jax.Array, smooth: float, exists: jax.Array) -> jax.Array:
  """1 - (2 both + smooth) / (size + smooth), 0 where there is nothing to compare."""
  return jnp.where(exists, 1 - (2 * both + smooth) / jnp.where(exists, size + smooth, 1), 0)


def lovasz_softmax_loss(
  probs: jax.Array,
  labels: jax.Array,
  classes: str | Sequence[int] = "present",
  per_image: bool = False,
  axis_name: str | None = None,
) -> jax.Array:
  """Lovász extension of 1 - IoU, a mean over classes; 0 without a labelled pixel.

  classes: "present", those with a label in the batch or image; "all"; or some by their numbers.
  per_image: the mean over images of each one's loss, not that of the batch as one image.

  probs: [B,H,W,C]; labels: [B,H,W] int32.
  Source: Berman, Triki and Blaschko 2018, `lovasz_softmax`.
  """
  chosen = jnp.arange(probs.shape[-1]) if isinstance(classes, str) else jnp.asarray(classes)
  probs = jnp.moveaxis(probs.astype(jnp.float32)[..., chosen], -1, 0)
  foreground = labels == chosen[:, None, None, None]
  errors = jnp.where(foreground, 1 - probs, probs)  # [K,B,H,W]
  losses, exists = _lovasz(errors, errors, foreground, labels != IGNORE, per_image, axis_name)
  counted = exists if classes == "present" else jnp.ones_like(exists)
  loss = jnp.where(counted, losses, 0).sum(axis=0) / jnp.maximum(counted.sum(axis=0), 1)
  return _mean_over_images(loss, axis_name) if per_image else loss[0]


def lovasz_hinge_loss(
  logits: jax.Array, labels: jax.Array, per_image: bool = True, axis_name: str | None = None
) -> jax.Array:
  """Lovász extension of 1 - IoU of a class against the rest, on the hinge; 0 without a label.

  logits: [B,H,W] of the class; labels: [B,H,W] int32, 1, 0 or IGNORE.
  Source: Berman, Triki and Blaschko 2018, `lovasz_hinge`.
  """
  foreground, valid = (labels == 1)[None], labels != IGNORE
  errors = 1 - jnp.where(foreground, 1, -1) * logits.astype(jnp.float32)
  costs = jax.nn.relu(errors)
  losses, _ = _lovasz(errors, costs, foreground, valid, per_image, axis_name)
  return _mean_over_images(losses[0], axis_name) if per_image else losses[0, 0]


def lovasz_weights(errors: jax.Array, foreground: jax.Array) -> jax.Array:
  """How much 1 - IoU grows as each pixel joins those with larger errors; without gradient.

  errors: [G,P] float32, -inf for pixels that are not there, which get 0; foreground: [G,P] bool.
  Source: Berman, Triki and Blaschko 2018, algorithm 1.
  """
  position = jnp.broadcast_to(jnp.arange(errors.shape[1]), errors.shape)
  _, order, hit = lax.sort((-lax.stop_gradient(errors), position, foreground), num_keys=1)
  size = hit.sum(axis=1, keepdims=True)
  left = size - jnp.cumsum(hit, axis=1)  # of the foreground, in whole numbers, which stay exact
  union = size + jnp.cumsum(~hit, axis=1)
  # Differences of consecutive IoUs in closed form: subtracted, they would cancel out.
  of_background = jnp.where(union > 1, left / jnp.maximum(union - 1, 1) / union, 1)
  growth = jnp.where(hit, 1 / union, of_background)
  scatter = lambda order, growth: jnp.zeros_like(growth).at[order].set(growth, unique_indices=True)
  return jnp.where(errors > -jnp.inf, jax.vmap(scatter)(order, growth), 0)


def _lovasz(
  errors: jax.Array,
  costs: jax.Array,
  foreground: jax.Array,
  valid: jax.Array,
  per_image: bool,
  axis_name: str | None,
) -> tuple[jax.Array, jax.Array]:
  """The loss of each class and image, [K,B], or batch, [K,1], and whether it has foreground.

  errors, which rank the pixels, costs and foreground: [K,B,H,W]; valid: [B,H,W].
  """
  groups = errors.shape[:2] if per_image else (errors.shape[0], 1)
  rows = lambda x: x.reshape(groups[0] * groups[1], -1)
  own = rows(lax.stop_gradient(jnp.where(valid, errors, -jnp.inf))), rows(foreground & valid)
  if per_image or axis_name is None:
    weights = lovasz_weights(*own)
  else:  # a rank is among the pixels of all devices, but the gradient is a device's own
    weights = lovasz_weights(*lax.all_gather(own, axis_name, axis=1, tiled=True))
    first = device_index(axis_name) * own[0].shape[1]
    weights = lax.dynamic_slice_in_dim(weights, first, own[0].shape[1], axis=1)
  losses, exists = (weights * rows(costs)).sum(axis=1), own[1].sum(axis=1)
  losses, exists = (losses, exists) if per_image else psum((losses, exists), axis_name)
  return losses.reshape(groups), exists.reshape(groups) > 0


def _mean_over_images(losses: jax.Array, axis_name: str | None) -> jax.Array:
  return psum(losses.sum(), axis_name) / (losses.shape[0] * device_count(axis_name))
