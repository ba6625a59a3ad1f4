"""Normalisation by a batch's own moments, in two readings of it forward and two of it backward.

A derived gradient takes more readings, in many more kernels; this one keeps nothing of the size of
a batch but the batch itself.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from semiseg_jax.backend import platform
from semiseg_jax.collectives import DATA_AXIS, alike, as_varying, device_count, pmean, psum

EPSILON = 1e-5
MOMENTS = "batch_moments"  # as a policy of `jax.checkpoint` knows them
_FAR = 4  # times the distance between two values of a channel


def normalise(
  x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array
) -> jax.Array:
  """x [...,C] by moments [C]: computed in float32, returned in its own dtype."""
  factor = lax.rsqrt(var + EPSILON) * scale
  return ((x.astype(jnp.float32) - mean) * factor + bias).astype(x.dtype)


def normalise_batch(
  x: jax.Array, scale: jax.Array, bias: jax.Array, near: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(x [...,C] normalised by its own moments, their mean [C], biased variance [C]).

  near, axis_name: as for `batch_moments`. The moments that come back have no gradient.
  """
  x, scale, bias = alike(x, scale, bias, axis_name=DATA_AXIS)
  return _normalise_batch(x, scale, bias, near, axis_name)


def batch_moments(
  x: jax.Array, near: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
  """Mean and biased variance [C] of x [...,C] over all devices, each holding equally many values.

  near: [C], equal on all devices, such as the running mean, of which deviations are taken so that
  one reading of x gives both sums. Where it is far off their squares would cancel, and a value of x
  takes its place. Devices' moments are put together around near, so that they travel as one sum:
  there the variance loses (distance / deviation)^2 float32 epsilons.
  """
  one, other = (x[tuple(k * n // 3 for n in x.shape[:-1])].astype(jnp.float32) for k in (1, 2))
  is_near = jnp.abs(near - one) <= _FAR * jnp.abs(other - one)
  shift = jnp.where(is_near, near, one)
  deviation = x.astype(jnp.float32) - shift
  count = x.size // x.shape[-1]
  first, second = (total / count for total in _two_sums(deviation, jnp.square(deviation)))
  own_mean, own_var = shift + first, jnp.maximum(second - jnp.square(first), 0)
  if axis_name is None:
    return own_mean, own_var
  offset = own_mean - near
  first, second = pmean(jnp.stack([offset, own_var + jnp.square(offset)]), axis_name)
  return near + first, jnp.maximum(second - jnp.square(first), 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalise_batch(
  x: jax.Array, scale: jax.Array, bias: jax.Array, near: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  return _forward(x, scale, bias, near, axis_name)[0]


def _forward(x, scale, bias, near, axis_name):
  moments = batch_moments(x, near, axis_name)
  mean, var = (checkpoint_name(moment, MOMENTS) for moment in moments)
  y = normalise(x, mean, var, scale, bias)
  return (y, mean, var), (x, scale, mean, lax.rsqrt(var + EPSILON))


def _backward(axis_name, saved, slopes):
  x, scale, mean, inverse = saved
  slope, deviation = slopes[0].astype(jnp.float32), x.astype(jnp.float32) - mean
  own = _two_sums(slope, slope * deviation)
  count = x.size // x.shape[-1] * device_count(axis_name)
  by_bias, by_scale = psum(as_varying(own, axis_name), axis_name) / count
  x_slope = (slope - by_bias - deviation * (jnp.square(inverse) * by_scale)) * (inverse * scale)
  return x_slope.astype(x.dtype), own[1] * inverse, own[0], None


def _two_sums(a: jax.Array, b: jax.Array) -> jax.Array:
  """Sums [2,C] of a and b [...,C]."""
  axes = tuple(range(a.ndim - 1))
  if platform() != "gpu":
    return jnp.stack([a.sum(axes), b.sum(axes)])
  # XLA adds long columns in two steps and would give each sum a kernel of its own for the second
  count = a.size // a.shape[-1]
  parts = max(k for k in range(1, math.isqrt(count) + 1) if count % k == 0)
  halves = [x.reshape(parts, -1, x.shape[-1]).sum(axis=1) for x in (a, b)]
  return jnp.stack(lax.optimization_barrier(halves)).sum(axis=1)


_normalise_batch.defvjp(_forward, _backward)
