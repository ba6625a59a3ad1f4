"""A memory bank: for each class the last feature vectors that were put in, newest first.

The bank is a ring over slots. On a mesh its rows are sharded over slots, and functions with an axis
name see a device's own block [K,S/N,D] of them; counts and heads are the same on all devices.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.collectives import device_count, device_index, psum
from semiseg_jax.fields import require

RANK_ORDERS = ("ascending", "descending")


@flax.struct.dataclass
class Bank:
  """rows: [K,S,D] float32 (on a mesh, sharded over S); count, head: [K] int32.

  The i-th newest row of class c is at slot (head[c] + i) mod S, for i < count[c].
  """

  rows: jax.Array
  count: jax.Array
  head: jax.Array


def empty(num_classes: int, slots: int, dim: int) -> Bank:
  """A bank without rows, all of it: not a device's part."""
  zeros = jnp.zeros(num_classes, jnp.int32)
  return Bank(jnp.zeros((num_classes, slots, dim)), zeros, zeros)


def slots(capacity: int, elements: int, images: int) -> int:
  """Slots of a class: capacity, or more if a first insertion can be longer (`enqueue`).

  Rounded up to a multiple of a batch's images, so that slots can be shared out among whatever
  devices the batch can be, and the bank's shape is the same on all of these.
  """
  return -(-max(capacity, elements) // images) * images


def quota(labeled_images: int, capacity: int = 256, factor: float = 1.0) -> int:
  """Rows that a class may put in for each image of a batch: the bank is filled about once an epoch.

  factor: 1 on Cityscapes, a third of the number of classes on Pascal VOC. Halves are rounded to
  even. Source: Alonso et al. 2021, as their code has it.
  """
  return max(1, int(factor * round(capacity / labeled_images)))


def class_counts(classes: jax.Array, num_classes: int, axis_name: str | None = None) -> jax.Array:
  """Rows [K] of each class on all devices; classes: [M] int32, outside [0, K) is no class."""
  return psum((classes[:, None] == jnp.arange(num_classes)).sum(axis=0), axis_name)


def enqueue(
  bank: Bank,
  rows: jax.Array,
  classes: jax.Array,
  scores: jax.Array,
  *,
  elements: int,
  capacity: int,
  rank_order: str = "ascending",
  axis_name: str | None = None,
) -> Bank:
  """Puts rows of the global batch into the bank, at most `elements` of each class.

  A class with more rows gives those of the lowest scores (rank_order "descending": the highest), in
  that order; one with at most `elements` rows gives them all, in the order of the batch. They go
  before the older ones, of which as many stay as make up `capacity`; the first insertion into an
  empty class is not cut to capacity.

  rows: [M,D]; classes: [M] int32, outside [0, K) for a row that stays out; scores: [M]; all of this
  device's images in raster order, device after device. elements: at most S.

  Between devices travel N*K*elements scores and one psum of [K,elements,D]; never the M rows, and
  never a row of the bank: each device rewrites the slots that it owns.

  Raises ValueError for another rank_order, or if `elements` or `capacity` exceed the slots.
  """
  require("rank_order", rank_order, RANK_ORDERS)
  own_slots = bank.rows.shape[1]
  total_slots = own_slots * device_count(axis_name)
  if max(elements, capacity) > total_slots:
    raise ValueError(
      f"a bank of {total_slots} slots cannot take {elements} rows at once and hold {capacity}"
    )
  sign = 1 if rank_order == "ascending" else -1
  available = class_counts(classes, bank.count.shape[0], axis_name)
  new_rows = _best_rows(rows, classes, sign * scores, available, elements, axis_name)

  added = jnp.minimum(available, elements)
  kept = jnp.where(bank.count == 0, added, jnp.minimum(bank.count + added, capacity))
  count = jnp.where(added > 0, kept, bank.count)
  head = (bank.head - added) % total_slots
  slot = device_index(axis_name) * own_slots + jnp.arange(own_slots)
  age = (slot - head[:, None]) % total_slots  # 0 is the newest
  source = jnp.minimum(age, new_rows.shape[1] - 1)[..., None]
  incoming = jnp.take_along_axis(new_rows, source, axis=1)
  is_new = age < added[:, None]
  return Bank(jnp.where(is_new[..., None], incoming, bank.rows), count, head)


def _best_rows(
  rows: jax.Array,
  classes: jax.Array,
  keys: jax.Array,
  available: jax.Array,
  elements: int,
  axis_name: str | None,
) -> jax.Array:
  """The rows [K,E,D] of lowest keys of each class on all devices, E at most `elements`.

  Classes with up to `elements` of the available rows [K] have them in the order of the batch.
  """
  num_rows, num_classes = rows.shape[0], available.shape[0]
  ranked = (available > elements)[:, None]
  order = jnp.where(ranked, keys, jnp.arange(num_rows, dtype=jnp.float32))
  is_class = classes == jnp.arange(num_classes)[:, None]
  best, own_row = lax.top_k(jnp.where(is_class, -order, -jnp.inf), min(elements, num_rows))

  own_best = jnp.where(ranked | (best == -jnp.inf), -best, 0)  # 0: as the devices, so the rows
  index, devices, own = device_index(axis_name), device_count(axis_name), best.shape[1]
  all_best = jnp.zeros((num_classes, devices, own)).at[:, index].set(own_best)
  all_best = psum(all_best, axis_name).reshape(num_classes, -1)
  source = jnp.argsort(all_best, axis=1, stable=True)[:, :elements]
  chosen = jnp.take_along_axis(own_row, source % own, axis=1)
  is_here = (source // own == index) & jnp.isfinite(jnp.take_along_axis(all_best, source, axis=1))
  return psum(jnp.where(is_here[..., None], rows[chosen], 0), axis_name)


def filled(bank: Bank, axis_name: str | None = None) -> jax.Array:
  """Which of a device's slots hold a row, [K,S/N] bool."""
  own_slots = bank.rows.shape[1]
  slot = device_index(axis_name) * own_slots + jnp.arange(own_slots)
  age = (slot - bank.head[:, None]) % (own_slots * device_count(axis_name))
  return age < bank.count[:, None]
