"""Attention over tokens, in the form that is fastest where it is right."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np

_TOLERANCE = 2e-2  # of bfloat16 numbers around 1


def attention(queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
  """softmax(Q K^T / sqrt(D)) V of [B,N,heads,D] each; softmax and sums in float32."""
  form = fastest_form(queries.shape, jnp.dtype(queries.dtype).name)
  return jax.nn.dot_product_attention(queries, keys, values, implementation=form)


@functools.cache
def fastest_form(shape: tuple, dtype: str) -> str:
  """The `implementation` of jax.nn.dot_product_attention for arrays of that shape: "xla", or
  "cudnn" on a GPU in bfloat16 if it gives the same there; if not, a warning says so."""
  if jax.default_backend() != "gpu" or dtype != "bfloat16":
    return "xla"
  with jax.ensure_compile_time_eval():
    difference = difference_of("cudnn", shape, dtype)
  if difference <= _TOLERANCE:
    return "cudnn"
  logging.warning("cuDNN's attention is not used: it differs by %s for %s", difference, shape)
  return "xla"


def difference_of(form: str, shape: tuple, dtype: str) -> float:
  """The largest difference between a form's result and the plain one's; infinite if it fails."""
  draws = np.random.default_rng(0).standard_normal((3, *shape), np.float32)
  inputs = [jnp.asarray(x, dtype) for x in draws]
  try:
    found, plain = (
      jax.nn.dot_product_attention(*inputs, implementation=i).astype(jnp.float32)
      for i in (form, "xla")
    )
    return float(jnp.abs(found - plain).max())
  except Exception as error:  # whatever the library or its driver raises
    logging.warning("attention by %s fails: %s", form, str(error).partition("\n")[0])
    return float("inf")
