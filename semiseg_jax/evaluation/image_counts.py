"""Pixels of every image and class, from which all scores of masks follow; masks may overlap."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class ImageCounts(NamedTuple):
  """int32 [B,K] of every image and class: hits, in mask and class; predicted, in the mask;
  predicted_labeled, those of them with a label; truth, in the class.

  And int32 [B] of every image: pixels, labeled. What is not inside an image counts nowhere.
  """

  hits: jax.Array
  predicted: jax.Array
  predicted_labeled: jax.Array
  truth: jax.Array
  pixels: jax.Array
  labeled: jax.Array


def inside_of(
  sizes: jax.Array, index: jax.Array, images: tuple[int, int], labels: tuple[int, int]
) -> jax.Array:
  """bool [B,*labels], the pixels of each image without what a batch adds: margins, and filler rows.

  sizes, index: "valid_size" and "index" of `EvalBatches`; images, labels: heights and widths of
  the batch's arrays, labels as large or a multiple.
  """
  sizes = sizes * (labels[0] // images[0])
  rows, columns = jnp.arange(labels[0]), jnp.arange(labels[1])
  tall, wide = rows < sizes[:, :1], columns < sizes[:, 1:]
  return tall[:, :, None] & wide[:, None, :] & (index >= 0)[:, None, None]


def count_masks(
  masks: jax.Array, labels: jax.Array, inside: jax.Array
) -> tuple[ImageCounts, jax.Array]:
  """(counts, confusion int32 [K,K+1] of all images) of masks bool [B,H,W,K].

  labels: int32 [B,H,W]; what is no class has no label. inside: bool [B,H,W]. confusion: rows are
  the labelled pixels' truth, columns the masks, the last one for pixels in no mask; where masks
  overlap a pixel counts in several columns. Exact up to 2^24 pixels of an image.
  """
  classes = masks.shape[-1]
  truth = jnp.where(labels < classes, labels, classes)
  truth = jnp.where(inside, truth, classes + 1)
  nowhere = ~masks.any(-1, keepdims=True)
  columns = jnp.concatenate([masks, nowhere, jnp.ones_like(nowhere)], -1)
  # As for `confusion_matrix`: a TPU has a matrix unit, elsewhere scattering wins.
  table = lax.platform_dependent(columns, truth, tpu=table_by_products, default=table_by_scattering)
  labeled = table[:, :classes]
  counts = ImageCounts(
    hits=jnp.diagonal(labeled, axis1=1, axis2=2),
    predicted=table[..., :classes].sum(1),
    predicted_labeled=labeled[..., :classes].sum(1),
    truth=labeled[..., -1],
    pixels=table[..., -1].sum(1),
    labeled=labeled[..., -1].sum(1),
  )
  return counts, labeled[..., :-1].sum(0)


def table_by_scattering(columns: jax.Array, truth: jax.Array) -> jax.Array:
  """int32 [B,K+1,K+2]: pixels of each truth, K for no label, in each column bool [B,H,W,K+2]."""
  images, rows = len(truth), columns.shape[-1]
  place = truth + rows * jnp.arange(images)[:, None, None]
  flat = columns.reshape(-1, rows).astype(jnp.int32)
  table = jax.ops.segment_sum(flat, place.reshape(-1), images * rows)
  return table.reshape(images, rows, rows)[:, :-1]


def table_by_products(columns: jax.Array, truth: jax.Array) -> jax.Array:
  """The same as one product of one-hot matrices per image."""
  images, rows = len(truth), columns.shape[-1]
  truth = jax.nn.one_hot(truth.reshape(images, -1), rows - 1, dtype=jnp.bfloat16)
  columns = columns.reshape(images, -1, rows).astype(jnp.bfloat16)
  table = jnp.einsum("bnt,bnp->btp", truth, columns, preferred_element_type=jnp.float32)
  return table.astype(jnp.int32)
