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

from semiseg_jax.collectives import DATA_AXIS, alike, as_varying, device_count, pmean, psum

EPSILON = 1e-5
MOMENTS = "batch_moments"  # as a policy of `jax.checkpoint` knows them


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

  near: [C], equal on all devices, such as the running mean. Devices' moments are put together
  around it, so that they travel as one sum: there the variance loses (distance / deviation)^2
  float32 epsilons.
  """
  mean, var = _own_moments(x)
  if device_count(axis_name) == 1:
    return pmean((mean, var), axis_name)
  offset = mean - near
  first, second = pmean(jnp.stack([offset, var + jnp.square(offset)]), axis_name)
  return near + first, jnp.maximum(second - jnp.square(first), 0)


def _own_moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Of this device, in one reading: deviations are from the value in the middle of the batch, whose
  squares do not cancel wherever the mean is."""
  middle = x[tuple(n // 2 for n in x.shape[:-1])].astype(jnp.float32)
  deviation = x.astype(jnp.float32) - middle
  first, second = _two_sums(deviation, jnp.square(deviation)) / (x.size // x.shape[-1])
  return middle + first, jnp.maximum(second - jnp.square(first), 0)


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
  """Sums [2,C] of a and b [...,C].

  A GPU adds long columns in two steps. XLA would find them by itself, but give each of two sums a
  kernel of its own for the second one.
  """
  count = a.size // a.shape[-1]
  parts = max(k for k in range(1, math.isqrt(count) + 1) if count % k == 0)
  sums = [x.reshape(parts, -1, x.shape[-1]).sum(axis=1) for x in (a, b)]
  return jnp.stack(lax.optimization_barrier(sums)).sum(axis=1)


_normalise_batch.defvjp(_forward, _backward)
