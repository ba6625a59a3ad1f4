"""Lists of each class's pixels over a batch that may lie on many devices, and draws from them.

A pool is the set of pixels that draws are made from: those of the global batch, or of one device.
A position in a class's list counts the pixels of that class in the pool in row-major order (image,
row, column). Shapes are static.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from semiseg_jax.collectives import device_count, psum


class PixelLists(NamedTuple):
  """Where the pixels of each class are, over a pool of P pixels of C classes.

  pixel: [P] the classes' lists one after the other: indices into this device's flat batch, -1 for a
  pixel of another device and after the last list. So a device keeps 4 bytes for each pixel of the
  pool. first: [C] where the list of a class begins; total: [C] its length.
  """

  pixel: jax.Array
  first: jax.Array
  total: jax.Array


class Draws(NamedTuple):
  """Q queries for each of C classes and N negatives for each query.

  query_index: [C,Q] positions in the class's list of hard pixels.
  negative_class: [C,Q,N] classes. negative_index: [C,Q,N] positions in that class's list of valid
  pixels. Rows of classes without hard pixels mean nothing.
  """

  query_index: jax.Array
  negative_class: jax.Array
  negative_index: jax.Array


def list_pixels(
  classes: jax.Array, num_classes: int, image_rank: jax.Array, axis_name: str | None
) -> PixelLists:
  """Lists the pixels of each class, by counting: no sort.

  classes: [B,M] class of each pixel; num_classes where it belongs to no list. image_rank: [B] place
  of each image among those of the pool. With an axis name the pool spans its devices, else it is
  this device's; only the counts [images of the pool, C] travel.
  """
  images, pixels = classes.shape
  pool_images = images * device_count(axis_name)
  is_class = classes[:, None, :] == jnp.arange(num_classes)[:, None]  # [B,C,M]
  count = is_class.sum(axis=2)
  pool_count = psum(jnp.zeros((pool_images, num_classes), int).at[image_rank].set(count), axis_name)
  total = pool_count.sum(axis=0)
  first = jnp.cumsum(total) - total
  start = first + (jnp.cumsum(pool_count, axis=0) - pool_count)[image_rank]  # of an image's, [B,C]

  place = start[..., None] + jnp.cumsum(is_class, axis=2) - 1
  place = jnp.where(is_class, place, 0).sum(axis=1).reshape(-1)
  own = jnp.arange(images * pixels)
  beyond = pool_images * pixels + own  # where nothing is written
  place = jnp.where(classes.reshape(-1) < num_classes, place, beyond)
  pixel = jnp.full(pool_images * pixels, -1)
  pixel = pixel.at[place].set(own, mode="drop", unique_indices=True)
  return PixelLists(pixel, first, total)


def locate(
  lists: PixelLists, classes: jax.Array, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The pixel at a position of a class's list, and whether this device has it.

  classes, positions: int32 of one shape. The pixel is an index into this device's flat batch, and
  some valid index where another device has it.
  """
  pixel = lists.pixel[lists.first[classes] + positions]
  return jnp.maximum(pixel, 0), (pixel >= 0) & (positions < lists.total[classes])


def draw_pixels(
  key: jax.Array,
  hard_count: jax.Array,
  valid_count: jax.Array,
  relation: jax.Array,
  num_queries: int,
  num_negatives: int,
) -> Draws:
  """Draws queries and negatives independently and with replacement.

  A query is uniform over its class's hard pixels. A negative's class follows the query's row of
  `relation`, then it is uniform over the valid pixels of that class.

  hard_count, valid_count: [C]; relation: [C,C], a row is a distribution or all zero.
  """
  num_classes = hard_count.shape[0]
  query_key, class_key, pixel_key = jax.random.split(key, 3)
  negatives = (num_classes, num_queries, num_negatives)
  negative_class = _draw_classes(class_key, relation, negatives)
  return Draws(
    _draw_positions(query_key, hard_count[:, None], (num_classes, num_queries)),
    negative_class,
    _draw_positions(pixel_key, valid_count[negative_class], negatives),
  )


def _draw_classes(key: jax.Array, relation: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
  """Inverts the cumulative distributions; a class of probability 0 is never drawn."""
  # Rounding could make a sum step up, or down, at a class of probability 0: such a step is removed.
  cumulative = jax.lax.cummax(jnp.where(relation > 0, jnp.cumsum(relation, axis=1), 0), axis=1)
  threshold = jax.random.uniform(key, shape) * cumulative[:, -1, None, None]  # below the last sum
  find = functools.partial(jnp.searchsorted, side="right", method="compare_all")
  drawn = jax.vmap(find)(cumulative, threshold)
  return jnp.minimum(drawn, relation.shape[1] - 1)  # a row of zeros draws nothing


def _draw_positions(key: jax.Array, count: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Uniform integers in [0, count), 0 where count is 0.

  The remainder of 32 random bits is uneven by count / 2^32, and cannot reach count as the product
  of a float and a count can.
  """
  bits = jax.random.bits(key, shape, jnp.uint32)
  return (bits % jnp.maximum(count, 1).astype(jnp.uint32)).astype(jnp.int32)
