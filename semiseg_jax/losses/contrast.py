"""Regional contrast: the ReCo loss (Liu, Zhi, Johns and Davison, ICLR 2022, section 3.2)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.backend import platform
from semiseg_jax.collectives import as_varying, device_count, device_index, psum
from semiseg_jax.fields import require
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.pools import Draws, PixelLists, draw_pixels, list_pixels, locate

_EXACT = lax.Precision.HIGHEST  # similarities in full float32 where matrix units would round
_MIN_NORM = 1e-8  # of a vector in a cosine
_NO_NEGATIVES = -1e30  # the logarithm of an empty sum, finite so that gradients stay so

# Queries whose keys a CPU gathers at once: N*D floats each, 16 MiB at N=512, D=256. Up to there its
# cache helps (64 queries take half as long again).
_QUERIES_AT_ONCE = 32

# Keys of one step on a GPU, were they stored: 2,048 queries at N=512, D=256.
_BYTES_AT_ONCE = 2**30


def reco_loss(
  embedding: jax.Array,
  labels: jax.Array,
  probs: jax.Array,
  *,
  key: jax.Array | None = None,
  draws: Draws | None = None,
  strong_threshold: float = 0.97,
  temperature: float = 0.5,
  num_queries: int = 256,
  num_negatives: int = 512,
  image_rank: jax.Array | None = None,
  axis_name: str | None = None,
  scope: str = "global",
) -> jax.Array:
  """Pulls uncertain pixels to their class's mean, and pushes them from pixels of near classes.

  For each class c with valid pixels, Q queries are drawn from its hard ones (probability of c below
  strong_threshold), and for each query N negatives: a class j with probability proportional to
  exp(cos(r_c, r_j) / T), r being the mean embeddings, then any valid pixel of j. The loss of a
  query is the cross-entropy of cos(query, key) / T over the keys [r_c, negatives], target r_c; it
  is averaged over queries, summed over classes, and divided by the number of classes with valid
  pixels, including those without hard ones. 0 if fewer than two classes have valid pixels. The
  gradient flows through the queries alone.

  embedding: [B,h,w,D]; labels: [B,h,w] int32, IGNORE where the pixel takes no part; probs:
  [B,h,w,C], the student's. key: equal on all devices; or the draws themselves, which override it
  and num_queries, num_negatives. image_rank: [B] place of each image in the global batch, a
  permutation over all devices (default: device after device).

  scope "global" draws from the pixels of all devices, and N devices compute what one would. What
  travels does not grow with the number of pixels: sums of [C,D] and [C,Q,D], and counts. scope
  "device" draws from each device's own pixels. Means, their number and what is near stay global,
  but negatives come from the classes at hand (a term without any is 0), and a device's term of a
  class is weighted by its hard pixels over the mean number of a device, so that the mean over
  devices of the returned losses weighs every hard pixel equally.

  Returns a float32 scalar. Raises ValueError for another scope, or without key and draws.
  """
  require("scope", scope, ("global", "device"))
  if key is None and draws is None:
    raise ValueError("reco_loss needs a key to draw pixels with, or draws")
  pool_axis = axis_name if scope == "global" else None
  classes, hard, image_rank = _pixels(labels, probs, strong_threshold, image_rank, pool_axis)
  num_classes = probs.shape[-1]
  valid_lists = list_pixels(classes, num_classes, image_rank, pool_axis)
  hard_classes = jnp.where(hard, classes, num_classes)
  hard_lists = list_pixels(hard_classes, num_classes, image_rank, pool_axis)

  pixels = jnp.asarray(embedding, jnp.float32).reshape(-1, embedding.shape[-1])
  constants = lax.stop_gradient(pixels)
  valid_count = valid_lists.total if pool_axis == axis_name else psum(valid_lists.total, axis_name)
  prototypes = _prototypes(constants, classes.reshape(-1), valid_count, axis_name)
  relation = class_relation(prototypes, valid_lists.total > 0, temperature)
  if draws is None:
    if pool_axis is None and axis_name is not None:
      key = jax.random.fold_in(key, device_index(axis_name))
    counts = hard_lists.total, valid_lists.total
    draws = draw_pixels(key, *counts, relation, num_queries, num_negatives)

  queries = _unit(_queries(pixels, hard_lists, draws.query_index, pool_axis))  # [C,Q,D]
  positive = jnp.einsum("cqd,cd->cq", queries, _unit(prototypes), precision=_EXACT) / temperature
  contrasted = (hard_lists.total > 0) & (relation > 0).any(axis=1)
  negative = _negatives(
    queries, constants, valid_lists, draws, contrasted, temperature, axis_name, pool_axis
  )
  term = jax.nn.softplus(negative - positive).mean(axis=1)  # -log(e^p / (e^p + e^n))
  weight = 1.0
  if pool_axis != axis_name:
    mean_hard = psum(hard_lists.total, axis_name) / device_count(axis_name)
    weight = hard_lists.total / jnp.maximum(mean_hard, 1 / device_count(axis_name))
  num_valid = (valid_count > 0).sum()
  total = jnp.where(contrasted, weight * term, 0).sum()
  return jnp.where(num_valid > 1, total / jnp.maximum(num_valid, 1), 0)


def class_relation(prototypes: jax.Array, present: jax.Array, temperature: float) -> jax.Array:
  """How negatives are shared out: row i is softmax_j(cos(r_i, r_j) / T) over present j != i.

  prototypes: [C,D]; present: [C] bool. Returns [C,C]; 0 for an absent j, and everywhere in a row
  that has no other class.
  """
  units = _unit(prototypes)
  similarity = jnp.matmul(units, units.T, precision=_EXACT) / temperature
  allowed = present[None, :] & ~jnp.eye(present.shape[0], dtype=bool)
  relation = jax.nn.softmax(jnp.where(allowed, similarity, -jnp.inf), axis=1)
  return jnp.where(allowed, relation, 0)


def _pixels(
  labels: jax.Array,
  probs: jax.Array,
  strong_threshold: float,
  image_rank: jax.Array | None,
  pool_axis: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Class [B,M] (C for none), hardness [B,M], and rank [B] of the images in the pool."""
  images, num_classes = labels.shape[0], probs.shape[-1]
  classes = jnp.where(labels == IGNORE, num_classes, labels).reshape(images, -1)
  of_class = jnp.minimum(classes, num_classes - 1)[..., None]
  prob = jnp.take_along_axis(probs.reshape(images, -1, num_classes), of_class, axis=-1)[..., 0]
  if image_rank is None:
    image_rank = device_index(pool_axis) * images + jnp.arange(images)
  elif pool_axis is None:
    image_rank = (image_rank[:, None] > image_rank).sum(axis=1)  # among this device's images
  return classes, lax.stop_gradient(prob) < strong_threshold, image_rank


def _unit(x: jax.Array) -> jax.Array:
  """Vectors along the last axis over their norms, which are taken to be _MIN_NORM at least."""
  squares = jnp.square(x).sum(axis=-1, keepdims=True)
  return x * lax.rsqrt(jnp.maximum(squares, _MIN_NORM**2))


def _prototypes(
  pixels: jax.Array, classes: jax.Array, valid_count: jax.Array, axis_name: str | None
) -> jax.Array:
  """Mean embedding [C,D] of each class's pixels on all devices; 0 for none."""
  is_class = (jnp.arange(valid_count.shape[0])[:, None] == classes).astype(jnp.float32)
  total = psum(jnp.matmul(is_class, pixels, precision=_EXACT), axis_name)
  return total / jnp.maximum(valid_count, 1)[:, None]


def _queries(
  pixels: jax.Array, hard_lists: PixelLists, query_index: jax.Array, pool_axis: str | None
) -> jax.Array:
  """The queries' raw embeddings [C,Q,D]; each device fills in the rows that it has."""
  own_class = jnp.broadcast_to(jnp.arange(query_index.shape[0])[:, None], query_index.shape)
  pixel, is_here = locate(hard_lists, own_class, query_index)
  rows = pixels[pixel]
  return psum(jnp.where(is_here[..., None], rows, 0), pool_axis)


class _Keys(NamedTuple):
  """What negatives are taken from: a similarity is scale[p] pixels[p] . query.

  pixels: [P,D]; scale: [P]; lists: of the classes' pixels; lowest: below any similarity.
  """

  pixels: jax.Array
  scale: jax.Array
  lists: PixelLists
  lowest: float


def _negatives(
  queries: jax.Array,
  pixels: jax.Array,
  valid_lists: PixelLists,
  draws: Draws,
  contrasted: jax.Array,
  temperature: float,
  axis_name: str | None,
  pool_axis: str | None,
) -> jax.Array:
  """log sum_n exp(cos(query, negative n) / T) of each query, [C,Q]; -1e30 without negatives.

  queries: [C,Q,D], of norm 1; pixels: [P,D], constant; contrasted: [C], whether a class's result is
  used.

  Value and gradient come together, because gathering the keys is nearly all the work and keeping
  them would take C*Q*N*D floats. The result is therefore linear in the queries around
  their present value: right to first order, and not meant to be differentiated twice.
  """
  fixed = lax.stop_gradient(queries)
  inverse_norm = lax.rsqrt(jnp.maximum(jnp.square(pixels).sum(axis=-1), _MIN_NORM**2))
  keys = _Keys(pixels, inverse_norm / temperature, valid_lists, -2 / temperature)
  drawn = fixed, draws.negative_class, draws.negative_index
  # On a TPU, XLA's estimate of a step doubled with the large ones: not measured, so not taken.
  if platform() == "gpu":
    largest, total, slope = _in_large_steps(keys, *drawn)
  else:
    largest, total, slope = _class_by_class(keys, *drawn, contrasted, axis_name)

  # Each device has seen the keys that it owns; a log-sum-exp and its gradient are put together.
  overall = largest if pool_axis is None else lax.pmax(largest, pool_axis)
  share = jnp.exp(largest - overall)
  total, slope = psum((share * total, share[..., None] * slope), pool_axis)
  value = jnp.where(total > 0, jnp.log(total) + overall, _NO_NEGATIVES)
  slope = slope / jnp.where(total > 0, total, 1)[..., None]
  return value + (slope * (queries - fixed)).sum(axis=-1)


def _class_by_class(
  keys: _Keys,
  queries: jax.Array,
  key_class: jax.Array,
  key_index: jax.Array,
  contrasted: jax.Array,
  axis_name: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """max_n s [C,Q], sum_n e^(s - max) and sum_n e^(s - max) ds/dquery [C,Q,D] of this device's keys.

  queries: [C,Q,D]; key_class, key_index: [C,Q,N]. Few queries at a time, whose keys stay in a CPU's
  cache; a class that is not contrasted is passed over.
  """

  def one_query(args):
    query, pixel, is_here = args
    rows, scale = keys.pixels[pixel], keys.scale[pixel]
    similarity = jnp.matmul(rows, query, precision=_EXACT) * scale
    similarity = jnp.where(is_here, similarity, -jnp.inf)
    largest = similarity.max(initial=keys.lowest)
    weight = jnp.exp(similarity - largest)
    return largest, weight.sum(), jnp.matmul(weight * scale, rows, precision=_EXACT)

  def one_class(args):
    is_contrasted, query, *drawn = args
    look = lambda: lax.map(
      one_query, (query, *locate(keys.lists, *drawn)), batch_size=_QUERIES_AT_ONCE
    )
    count = query.shape[:1]
    nothing = jnp.full(count, keys.lowest), jnp.zeros(count), jnp.zeros(query.shape)
    return lax.cond(is_contrasted, look, lambda: as_varying(nothing, axis_name))

  return lax.map(one_class, (contrasted, queries, key_class, key_index))


def _in_large_steps(
  keys: _Keys, queries: jax.Array, key_class: jax.Array, key_index: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """As `_class_by_class`, of all classes: few large kernels, which a GPU needs.

  The keys of a step are one matrix [R*N,D] until they are summed up, which is how XLA reads them
  from the pixels twice, in the two sums, and does not store them: as [R,N,D] it stores them, and in
  another layout.
  """
  dim, drawn = queries.shape[-1], key_class.shape[-1]

  def some_queries(query, pixel, is_here):
    pixel = pixel.reshape(-1)
    rows, scale = keys.pixels[pixel], keys.scale[pixel].reshape(is_here.shape)
    products = rows * jnp.repeat(query, drawn, axis=0)
    similarity = products.sum(axis=-1).reshape(is_here.shape) * scale
    similarity = jnp.where(is_here, similarity, -jnp.inf)
    largest = similarity.max(axis=1, initial=keys.lowest)
    weight = jnp.exp(similarity - largest[:, None])
    slopes = rows * (weight * scale).reshape(-1, 1)
    return largest, weight.sum(axis=1), slopes.reshape(-1, drawn, dim).sum(axis=1)

  located = locate(keys.lists, key_class, key_index)
  flat = [x.reshape(-1, x.shape[-1]) for x in (queries, *located)]
  step = max(1, _BYTES_AT_ONCE // (drawn * dim * keys.pixels.itemsize))
  starts = range(0, len(flat[0]), step)
  seen = [some_queries(*(x[start : start + step] for x in flat)) for start in starts]
  whole = [jnp.concatenate(parts) for parts in zip(*seen, strict=True)]
  return tuple(x.reshape(*queries.shape[:2], *x.shape[1:]) for x in whole)
