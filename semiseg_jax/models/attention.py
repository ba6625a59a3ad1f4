"""Attention over tokens, in the form that is fastest where it is right."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax

from semiseg_jax.backend import is_planned, platform

_TOLERANCE = 2e-2  # of an array's norm; the plain form in bfloat16 is off by 0.5 %


def attention(queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
  """softmax(Q K^T / sqrt(D)) V of [B,N,heads,D] each; softmax and sums in float32."""
  shape, is_known = queries.shape, not any(map(export.is_symbolic_dim, queries.shape))
  form = fastest_form(shape, jnp.dtype(queries.dtype).name, platform()) if is_known else "xla"
  return jax.nn.dot_product_attention(queries, keys, values, implementation=form)


@functools.cache
def fastest_form(shape: tuple[int, ...], dtype: str, platform: str) -> str:
  """The `implementation` of jax.nn.dot_product_attention for arrays [B,N,heads,D].

  "cudnn" on a GPU in bfloat16, if it gives there what the plain form, "xla", does, which all others
  get; where it doesn't, a warning says so. Tried once for each shape, when a program is traced; not
  in a plan.
  """
  if platform != "gpu" or dtype != "bfloat16":
    return "xla"
  if is_planned():
    return "cudnn"
  try:
    with jax.ensure_compile_time_eval():
      difference = difference_of("cudnn", shape, dtype)
  except Exception as error:  # whatever the library or its driver raises
    reason = str(error).partition("\n")[0]
  else:
    if difference <= _TOLERANCE:
      return "cudnn"
    reason = f"it is off by {difference:.1%}"
  logging.warning("attention of %s goes without cuDNN, slower: %s", shape, reason)
  return "xla"


def difference_of(form: str, shape: tuple[int, ...], dtype: str) -> float:
  """How far a form's result and gradients are from the plain form's in float32.

  The largest share of an array's norm, of draws from a normal distribution.
  """
  draws = np.random.default_rng(0).standard_normal((4, *shape), np.float32)
  inputs = [jnp.asarray(x, dtype) for x in draws]
  found = _with_gradients(form, *inputs)
  one_image = lambda arrays: _with_gradients("xla", *(x[None] for x in arrays))
  # image by image: the plain form's memory grows with the square of the tokens
  right = lax.map(one_image, [x.astype(jnp.float32) for x in inputs])
  norm = lambda x: jnp.linalg.norm(x.astype(jnp.float32).ravel())
  shares = [norm(x - y.reshape(x.shape)) / norm(y) for x, y in zip(found, right, strict=True)]
  return float(max(shares))


@functools.partial(jax.jit, static_argnums=0)
def _with_gradients(form, queries, keys, values, slope):
  run = functools.partial(jax.nn.dot_product_attention, implementation=form)
  result, pull = jax.vjp(run, queries, keys, values)
  return result, *pull(slope)
