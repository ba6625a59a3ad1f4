"""Class weights from how often classes occur in recent labels and pseudo-labels.

Alonso et al. 2021, section 3.4, as their code has it.
"""

import flax.struct
import jax
import jax.numpy as jnp

from semiseg_jax.collectives import psum


@flax.struct.dataclass
class ClassTables:
  """Pixels of each class in the batches seen, int32, the same on all devices.

  labeled: [L,K], row t is the t-th batch; later batches are not counted. unlabeled: [U,K], the last
  U batches, the t-th in row t mod U. step: [] unlabelled batches so far.
  """

  labeled: jax.Array
  unlabeled: jax.Array
  step: jax.Array


def empty_tables(labeled_batches: int, unlabeled_batches: int, num_classes: int) -> ClassTables:
  """Tables of L and U batches; as a rule, those of one epoch of each stream."""
  table = lambda batches: jnp.zeros((batches, num_classes), jnp.int32)
  return ClassTables(table(labeled_batches), table(unlabeled_batches), jnp.zeros((), jnp.int32))


def add_labeled(
  tables: ClassTables, labels: jax.Array, axis_name: str | None = None
) -> ClassTables:
  """Counts a labelled batch, [B,H,W] int32 on this device, in the row of the present step."""
  counts = _class_pixels(labels, tables.labeled.shape[1], axis_name)
  is_row = jnp.arange(tables.labeled.shape[0])[:, None] == tables.step
  return tables.replace(labeled=jnp.where(is_row, counts, tables.labeled))


def add_unlabeled(
  tables: ClassTables, pseudo_label: jax.Array, axis_name: str | None = None
) -> ClassTables:
  """Counts a pseudo-labelled batch, [B,H,W] int32, in place of the oldest, and ends the step."""
  batches, num_classes = tables.unlabeled.shape
  counts = _class_pixels(pseudo_label, num_classes, axis_name)
  is_row = jnp.arange(batches)[:, None] == tables.step % batches
  unlabeled = jnp.where(is_row, counts, tables.unlabeled)
  return tables.replace(unlabeled=unlabeled, step=tables.step + 1)


def class_weights(tables: ClassTables) -> jax.Array:
  """sqrt(median(F) / F) of each class [K], F its pixels in both tables; ones until both are full.

  A class without pixels gets the largest weight of the others, 1 at least. If more than half of
  the classes have none, so that the median is 0, the others get 0.
  """
  total = sum(table.astype(jnp.float32).sum(axis=0) for table in (tables.labeled, tables.unlabeled))
  ratio = jnp.where(total > 0, jnp.median(total) / jnp.maximum(total, 1), 1)
  ratio = jnp.where(total > 0, ratio, ratio.max())
  full = tables.step >= max(tables.labeled.shape[0], tables.unlabeled.shape[0])
  return jnp.where(full, jnp.sqrt(ratio), 1)


def _class_pixels(labels: jax.Array, num_classes: int, axis_name: str | None) -> jax.Array:
  """Pixels [K] of each class on all devices; IGNORE is none."""
  is_class = labels.reshape(-1) == jnp.arange(num_classes)[:, None]
  return psum(is_class.sum(axis=1, dtype=jnp.int32), axis_name)
