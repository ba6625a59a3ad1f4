"""Contrast of pixels with a class-wise memory bank (Alonso et al., ICCV 2021, section 3.3)."""

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.collectives import psum
from semiseg_jax.fields import require
from semiseg_jax.losses.bank import Bank, class_counts, enqueue, filled
from semiseg_jax.models.selectors import ClassSelectors

_EXACT = lax.Precision.HIGHEST  # float32 where matrix units would round
_MIN_NORM = 1e-12  # of a vector in a cosine

MEMORY_WEIGHTS = ("code", "rescaled")


def contrastive_loss(
  features: jax.Array,
  classes: jax.Array,
  scores: jax.Array,
  bank: Bank,
  memory_scores: jax.Array | None = None,
  axis_name: str | None = None,
) -> jax.Array:
  """Mean weighted cosine distance between the pixels of each class and the class's bank.

  For class c with M > 1 pixels f_m of scores a_m, N > 1 bank rows k_n of scores b_n,
  w_m = M a_m / sum a, v_n = N b_n / sum b:

    L_c = 1/(MN) sum_mn w_m v_n (1 - cos(f_m, k_n))
        = 1 - (sum_m a_m f_m/|f_m|) . (sum_n b_n k_n/|k_n|) / (sum a sum b)

  since the weight of a pair is a product: the sums on the right take M + N steps and the distances
  are never made. The loss is sum_c L_c / K; classes with M <= 1 or N <= 1 add nothing and are
  counted in K. M, N and all sums are over all devices: one psum of [K,D] for each side.

  features: [M,D]; classes: [M] int32, outside [0, K) for a pixel that takes no part; scores: [M];
  bank: this device's part; memory_scores: [K,S/N] of its slots, None for equal weights. The
  gradient flows to features and scores, not to the bank's rows. Returns a float32 scalar.
  """
  num_classes = bank.count.shape[0]
  is_class = classes == jnp.arange(num_classes)[:, None]  # [K,M]
  features = features.astype(jnp.float32)
  # A feature's norm goes with its weight, so that no normalised copy of the features is made.
  scaled = jnp.where(is_class, scores * _inverse_norm(features), 0)
  pixel_sum = jnp.matmul(scaled, features, precision=_EXACT)
  pixel_total = jnp.where(is_class, scores, 0).sum(axis=1)

  rows, in_use = lax.stop_gradient(bank.rows), filled(bank, axis_name)
  memory_weight = jnp.where(in_use, 1.0 if memory_scores is None else memory_scores, 0)
  scaled = (memory_weight * _inverse_norm(rows))[:, None]
  memory_sum = jnp.matmul(scaled, rows, precision=_EXACT)[:, 0]

  own = (pixel_sum, pixel_total, memory_sum, memory_weight.sum(axis=1))
  pixel_sum, pixel_total, memory_sum, memory_total = psum(own, axis_name)
  takes_part = contrasted(class_counts(classes, num_classes, axis_name), bank)
  total = jnp.where(takes_part, pixel_total * memory_total, 1)
  term = 1 - (pixel_sum * memory_sum).sum(axis=1) / total
  return jnp.where(takes_part, term, 0).sum() / num_classes


def contrasted(count: jax.Array, bank: Bank) -> jax.Array:
  """Classes [K] that take part: more than one of count [K] pixels, and of rows in the bank."""
  return (count > 1) & (bank.count > 1)


def selected_contrast(
  selectors: ClassSelectors,
  memory_selectors: ClassSelectors,
  features: jax.Array,
  classes: jax.Array,
  bank: Bank,
  *,
  memory_weights: str = "code",
  axis_name: str | None = None,
) -> jax.Array:
  """`contrastive_loss` with the scores of two sets of selectors, in training mode.

  Pixels are scored by what their features are, with a gradient to the selectors but not to the
  features; the bank's rows are normalised first. memory_weights "code": as in the authors' code the
  bank's rows count alike, and scoring them only moves the running statistics of memory_selectors.
  "rescaled": by their scores over the class's mean score, as in the paper.

  The selectors' statistics move for the classes that take part. Raises ValueError for other
  memory_weights.
  """
  require("memory_weights", memory_weights, MEMORY_WEIGHTS)
  num_classes = bank.count.shape[0]
  takes_part = contrasted(class_counts(classes, num_classes, axis_name), bank)
  scores = selectors(lax.stop_gradient(features), classes, True, takes_part)
  rows = lax.stop_gradient(bank.rows)
  units = rows * _inverse_norm(rows)[..., None]
  memory_scores = memory_selectors.score_blocks(
    units, jnp.arange(num_classes), filled(bank, axis_name), True, takes_part
  )
  if memory_weights == "code":
    memory_scores = None
  return contrastive_loss(features, classes, scores, bank, memory_scores, axis_name)


def remember(
  bank: Bank,
  selectors: ClassSelectors,
  rows: jax.Array,
  classes: jax.Array,
  *,
  elements: int,
  capacity: int,
  rank_order: str = "ascending",
  axis_name: str | None = None,
) -> Bank:
  """`enqueue` with the scores of selectors in training mode.

  Only the classes that have more than `elements` rows are ranked, and only their running statistics
  move.
  """
  ranked = class_counts(classes, bank.count.shape[0], axis_name) > elements
  rows = lax.stop_gradient(rows)
  scores = lax.stop_gradient(selectors(rows, classes, True, ranked))
  return enqueue(
    bank,
    rows,
    classes,
    scores,
    elements=elements,
    capacity=capacity,
    rank_order=rank_order,
    axis_name=axis_name,
  )


def _inverse_norm(x: jax.Array) -> jax.Array:
  """1 / max(norm, _MIN_NORM) along the last axis, with a gradient of 0 below."""
  return lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1), _MIN_NORM**2))
