"""Per-class selectors: one small network for each class that scores that class's feature vectors.

All classes are computed at once, each row through its own class's network only: rows are sorted
into blocks of a fixed size and one class each, and a block is multiplied by its class's weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from semiseg_jax.collectives import psum
from semiseg_jax.models.batch_norm import EPSILON
from semiseg_jax.models.layers import BatchNorm, Maker, uniform_fan_in

_EXACT = lax.Precision.HIGHEST  # float32 where matrix units would round

# With M / (8 K) rows in a block, M rows of K classes fill at most 9 K blocks: an eighth more
# products than rows, and a copy of a class's weights for each block, whatever M is.
_BLOCKS_PER_CLASS = 8
_SMALLEST_BLOCK = 8


class Blocks(NamedTuple):
  """M rows sorted into G blocks of P places, each of one class.

  row: [G,P] the row at each place, some row where filled [G,P] is False. classes: [G].
  place: [M] where a row is among the G*P places, 0 for a row without a class.
  """

  row: jax.Array
  filled: jax.Array
  classes: jax.Array
  place: jax.Array


def block_rows(classes: jax.Array, num_classes: int) -> Blocks:
  """Sorts rows into blocks; classes: [M] int32, anything outside [0, num_classes) is no class."""
  num_rows = classes.shape[0]
  size = max(_SMALLEST_BLOCK, num_rows // (_BLOCKS_PER_CLASS * num_classes))
  has_class = (classes >= 0) & (classes < num_classes)
  classes = jnp.where(has_class, classes, num_classes)
  order = jnp.argsort(classes, stable=True)
  rank = jnp.zeros(num_rows, int).at[order].set(jnp.arange(num_rows), unique_indices=True)

  count = (classes[:, None] == jnp.arange(num_classes)).sum(axis=0)
  first = jnp.cumsum(count) - count
  blocks = -(-count // size)
  end_block = jnp.cumsum(blocks)
  first_block = end_block - blocks

  block = jnp.arange(num_rows // size + num_classes)
  block_class = jnp.minimum((end_block <= block[:, None]).sum(axis=1), num_classes - 1)
  position = (block - first_block[block_class])[:, None] * size + jnp.arange(size)
  row = order[jnp.minimum(first[block_class][:, None] + position, num_rows - 1)]
  own = jnp.minimum(classes, num_classes - 1)
  place = jnp.where(has_class, first_block[own] * size + rank - first[own], 0)
  return Blocks(row, position < count[block_class][:, None], block_class, place)


class ClassLinear(nnx.Module):
  """A linear layer for each class: kernel [K,I,O], bias [K,O]; PyTorch's initialisation."""

  def __init__(
    self, num_classes: int, in_channels: int, out_channels: int, rng: np.random.Generator
  ):
    kernel, bias = (num_classes, in_channels, out_channels), (num_classes, out_channels)
    self.kernel = nnx.Param(uniform_fan_in(rng, kernel, in_channels))
    self.bias = nnx.Param(uniform_fan_in(rng, bias, in_channels))

  def __call__(self, x: jax.Array, classes: jax.Array) -> jax.Array:
    """x [G,P,I], a block of each of classes [G] -> [G,P,O]."""
    kernel, bias = (jnp.asarray(p[...])[classes] for p in (self.kernel, self.bias))
    return jnp.matmul(x, kernel, precision=_EXACT) + bias[:, None]


class ClassBatchNorm(BatchNorm):
  """BatchNorm for each class, over the class's rows of all devices; all of it [K,D]."""

  def __call__(
    self,
    x: jax.Array,
    classes: jax.Array,
    filled: jax.Array,
    train: bool,
    update: jax.Array | None,
  ) -> jax.Array:
    """x [G,P,D], blocks of classes [G] with rows where filled [G,P]; update: see the selectors."""
    mean, var = self.mean[...], self.var[...]
    if train:
      count, mean, var = class_moments(x, classes, filled, mean.shape[0], self.axis_name)
      moves = count > 1 if update is None else (count > 1) & update
      unbiased = var * (count / jnp.maximum(count - 1, 1))[:, None]
      self.average(mean, unbiased, moves[:, None])
    factor = lax.rsqrt(var + EPSILON) * self.scale[...]
    tables = (mean, factor, self.bias[...])
    mean, factor, bias = (jnp.asarray(table)[classes][:, None] for table in tables)
    return (x - mean) * factor + bias


def class_moments(
  x: jax.Array, classes: jax.Array, filled: jax.Array, num_classes: int, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Count [K], mean and biased variance [K,D] of each class's rows on all devices.

  x: [G,P,D] in blocks of classes [G] with rows where filled [G,P]. Two psums of [K,D]. A class
  without rows has mean and variance 0.
  """
  is_class = (jnp.arange(num_classes)[:, None] == classes).astype(jnp.float32)  # [K,G]
  of_blocks = lambda sums: jnp.matmul(is_class, sums, precision=_EXACT)
  over_rows = lambda values: jnp.where(filled[..., None], values, 0).sum(axis=1)
  own_count = of_blocks(filled.sum(axis=1).astype(jnp.float32))
  count, total = psum((own_count, of_blocks(over_rows(x))), axis_name)
  divisor = jnp.maximum(count, 1)[:, None]
  mean = total / divisor
  deviation = x - mean[classes][:, None]
  squares = psum(of_blocks(over_rows(jnp.square(deviation))), axis_name)
  return count, mean, squares / divisor


def _leaky_relu(x: jax.Array) -> jax.Array:
  return nnx.leaky_relu(x, negative_slope=0.2)


class ClassSelectors(nnx.List):
  """Linear, BatchNorm, leaky ReLU, linear to one number, sigmoid: for each of K classes.

  The layers are numbered as in the originals' `contrastive_class_selector_{c}`; their arrays have
  the classes as a further, leading axis. Source: Alonso et al. 2021, section 3.3.
  """

  def __init__(self, num_classes: int, dim: int, make: Maker):
    first = ClassLinear(num_classes, dim, dim, make.rng)
    norm = ClassBatchNorm((num_classes, dim), axis_name=make.axis_name)
    super().__init__([first, norm, _leaky_relu, ClassLinear(num_classes, dim, 1, make.rng)])

  @property
  def num_classes(self) -> int:
    return self[0].kernel.shape[0]

  def __call__(
    self, rows: jax.Array, classes: jax.Array, train: bool, update: jax.Array | None = None
  ) -> jax.Array:
    """Scores [M] in (0, 1) of rows [M,D] under the selectors of their classes [M].

    classes: int32, anything outside [0, K) is no class and scores 0. In training, each class's rows
    on all devices make up one batch. update: [K] bool, the classes whose running statistics may
    move (default: all); those of a class with less than two rows never do.
    """
    blocks = block_rows(classes, self.num_classes)
    x = rows.astype(jnp.float32)[blocks.row]
    scores = self.score_blocks(x, blocks.classes, blocks.filled, train, update).reshape(-1)
    has_class = (classes >= 0) & (classes < self.num_classes)
    return jnp.where(has_class, scores[blocks.place], 0)

  def score_blocks(
    self,
    x: jax.Array,
    classes: jax.Array,
    filled: jax.Array,
    train: bool,
    update: jax.Array | None = None,
  ) -> jax.Array:
    """Scores [G,P] of rows x [G,P,D] that lie in blocks of classes [G] where filled [G,P]."""
    linear, norm, activation, last = self
    x = activation(norm(linear(x, classes), classes, filled, train, update))
    return nnx.sigmoid(last(x, classes)[..., 0])
