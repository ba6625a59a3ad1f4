"""Heads on rows of features: pixels taken out of their images, of which a mask says how many count.

With fixed shapes a selection of pixels is all pixels and a mask; BatchNorm then sees the selected
ones alone.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from semiseg_jax.collectives import psum
from semiseg_jax.models.batch_norm import normalise
from semiseg_jax.models.layers import BatchNorm, Linear, Maker


class RowHead(nnx.List):
  """Linear, BatchNorm, ReLU, linear; numbered as in the originals' projection_head.

  The first layer computes in make's dtype, the last in float32. Source: Alonso et al. 2021, 3.2.
  """

  def __init__(self, in_dim: int, dim: int, make: Maker):
    first = Linear(in_dim, dim, rng=make.rng, dtype=make.dtype)
    norm = RowBatchNorm(dim, axis_name=make.axis_name)
    super().__init__([first, norm, nnx.relu, Linear(dim, dim, rng=make.rng)])

  def __call__(self, rows: jax.Array, mask: jax.Array, train: bool) -> jax.Array:
    """rows [M,C] -> float32 [M,dim]; in training the rows where mask [M] make up the batch.

    The other rows come out too, computed with the batch's statistics, and have no part in them.
    """
    linear, norm, activation, last = self
    return last(activation(norm(linear(rows), mask, train)))


class RowBatchNorm(BatchNorm):
  """BatchNorm over the rows that count; fewer than two of them leave the running statistics."""

  def __call__(self, x: jax.Array, mask: jax.Array, train: bool) -> jax.Array:
    """x [M,C], normalised in float32, returned in its own dtype; mask: [M] bool."""
    mean, var = self.mean[...], self.var[...]
    if train:
      count, mean, var = row_moments(x.astype(jnp.float32), mask, self.axis_name)
      self.average(mean, var * (count / jnp.maximum(count - 1, 1)), moves=count > 1)
    return normalise(x, mean, var, self.scale[...], self.bias[...])


def row_moments(
  x: jax.Array, mask: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Number, mean [C] and biased variance [C] of the rows of x [M,C] where mask [M], on all devices.

  Without a row, mean and variance are 0. A device's deviations are from its own mean, corrected
  to the global one afterwards.
  """
  over_rows = lambda values: jnp.where(mask[:, None], values, 0).sum(axis=0)
  own_count, own_total = mask.sum(dtype=jnp.float32), over_rows(x)
  own_mean = own_total / jnp.maximum(own_count, 1)
  own_squares = over_rows(jnp.square(x - own_mean))
  count, total = psum((own_count, own_total), axis_name)
  mean = total / jnp.maximum(count, 1)
  squares = own_squares + own_count * jnp.square(own_mean - mean)
  return count, mean, psum(squares, axis_name) / jnp.maximum(count, 1)
