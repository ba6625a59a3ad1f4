"""Boundary IoU (Cheng, Girshick, Dollar, Berg, Kirillov, CVPR 2021): the IoU of what is near the
outlines of masks and of truth."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class BoundaryCounts(NamedTuple):
  """Pixels near both outlines and near either, int32 [B,K] of every image and class."""

  hits: jax.Array
  union: jax.Array


def radius(sizes: np.ndarray, ratio: float) -> np.ndarray:
  """int32 [...], how near an outline is in pixels: that share of the diagonal, and at least 1.

  sizes: heights and widths [...,2]. The paper's ratio is 0.02.
  """
  diagonal = np.hypot(*np.moveaxis(np.asarray(sizes, np.float64), -1, 0))
  return np.maximum(np.rint(ratio * diagonal), 1).astype(np.int32)


def count_boundaries(
  masks: jax.Array, labels: jax.Array, inside: jax.Array, near: jax.Array, most: int
) -> BoundaryCounts:
  """The counts of masks bool [B,H,W,K], labels int32 [B,H,W], where inside bool [B,H,W] says.

  near: int32 [B], the radius of each image; most: no smaller than the largest. The image's edge is
  an outline, as in the authors' code. Pixels without a label, which that code doesn't know, are
  counted in neither, and where they begin there is no outline.
  """
  classes = masks.shape[-1]
  known = (inside & (labels < classes))[..., None]
  truth = jax.nn.one_hot(labels, classes, dtype=jnp.bool_)
  unknown = jnp.where((inside & (labels >= classes))[..., None], jnp.uint32(2**32 - 1), 0)

  def band(mask: jax.Array) -> jax.Array:
    words = packed(mask & known)
    return words & ~erode(words | unknown, near, most)

  of_masks, of_truth = band(masks), band(truth)
  count = lambda words: unpacked(words, classes).sum((1, 2), dtype=jnp.int32)
  return BoundaryCounts(count(of_masks & of_truth), count(of_masks | of_truth))


def packed(masks: jax.Array) -> jax.Array:
  """uint32 [...,N], 32 classes of bool [...,K] in a word, with which eroding has less to do."""
  classes = masks.shape[-1]
  masks = jnp.pad(masks, [(0, 0)] * (masks.ndim - 1) + [(0, -classes % 32)])
  masks = masks.reshape(*masks.shape[:-1], -1, 32).astype(jnp.uint32)
  return (masks << jnp.arange(32, dtype=jnp.uint32)).sum(-1, dtype=jnp.uint32)


def unpacked(words: jax.Array, classes: int) -> jax.Array:
  """bool [...,classes] of what `packed` made of it."""
  bits = (words[..., None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
  return bits.reshape(*words.shape[:-1], -1)[..., :classes] > 0


def erode(masks: jax.Array, by: jax.Array, most: int) -> jax.Array:
  """What is left of bool or packed [B,H,W,N] where all within a square of 2 by + 1 pixels is set.

  by: int32 [B], at most `most`. Beyond the arrays nothing is set.
  """
  for axis in (1, 2):
    rest, step = by, 1
    # steps of 1, 2, 4, ... and what is then left reach every pixel of the square's side
    while step <= most:
      shift = jnp.clip(rest, 0, step)
      masks &= _moved_both_ways(masks, shift, step, axis)
      rest, step = rest - step, 2 * step
  return masks


def _moved_both_ways(masks: jax.Array, by: jax.Array, most: int, axis: int) -> jax.Array:
  """What is set so many places before and behind."""
  pads = [(most, most) if i == axis else (0, 0) for i in range(masks.ndim)]
  padded = jnp.pad(masks, pads)
  part = lambda x, start: lax.dynamic_slice_in_dim(x, start, masks.shape[axis], axis - 1)
  moved = jax.vmap(part)
  return moved(padded, most - by) & moved(padded, most + by)
