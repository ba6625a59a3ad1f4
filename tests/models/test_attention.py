"""The forms of attention: what they compute, and which one is taken where."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from semiseg_jax.collectives import DATA_AXIS, as_varying
from semiseg_jax.models import attention
from semiseg_jax.runtime.mesh import make_mesh

PLAIN = jax.nn.dot_product_attention
SHAPE = (1, 5, 2, 8)


def test_it_is_the_definition():
  shape = (2, 7, 3, 8)
  q, k, v = (jax.random.normal(jax.random.key(i), shape) for i in range(3))
  weights = jax.nn.softmax(jnp.einsum("bnhd,bmhd->bhnm", q, k, precision="highest") / 8**0.5)
  expected = jnp.einsum("bhnm,bmhd->bnhd", weights, v, precision=lax.Precision.HIGHEST)
  np.testing.assert_allclose(attention.attention(q, k, v), expected, rtol=1e-5, atol=1e-5)


def right(q, k, v, implementation):
  return PLAIN(q, k, v)


def without_the_last_token(q, k, v, implementation):
  return PLAIN(q, k[:, :-1], v[:, :-1]) if implementation == "cudnn" else PLAIN(q, k, v)


def with_another_gradient(q, k, v, implementation):
  return PLAIN(q, lax.stop_gradient(k) if implementation == "cudnn" else k, v)


def without_a_driver(q, k, v, implementation):
  if implementation == "cudnn":
    raise RuntimeError("no cuDNN here\nand more")
  return PLAIN(q, k, v)


@pytest.fixture
def on_gpu(monkeypatch):
  """A function: this form of attention stands for cuDNN's."""
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  attention.fastest_form.cache_clear()
  attention._with_gradients.clear_cache()
  yield lambda form: monkeypatch.setattr(jax.nn, "dot_product_attention", form)
  attention.fastest_form.cache_clear()
  attention._with_gradients.clear_cache()


@pytest.mark.parametrize(
  ("form", "message"),
  [
    (without_the_last_token, r"goes without cuDNN, slower: it is off by \d+\.\d%"),
    (with_another_gradient, "slower: it is off by 100.0%"),
    (without_a_driver, "slower: no cuDNN here$"),
  ],
)
def test_a_form_that_differs_or_fails_is_not_taken(form, message, on_gpu, caplog):
  on_gpu(form)
  assert attention.fastest_form(SHAPE, "bfloat16", "gpu") == "xla"
  assert len(caplog.messages) == 1
  assert re.search(message, caplog.messages[0])


def test_cudnn_is_tried_while_a_step_is_traced_and_taken_where_it_is_right(on_gpu, caplog):
  """In bfloat16, once for a device's own shape; a program for images of any number goes without."""
  taken = []

  def form(q, k, v, implementation):
    if isinstance(q, jax.core.Tracer):
      taken.append((implementation, q.shape))
    return PLAIN(q, k, v)

  on_gpu(form)
  loss = lambda x: attention.attention(x, x, x).astype(jnp.float32).sum()
  step = lambda x: jax.grad(jax.checkpoint(loss))(as_varying(x, DATA_AXIS))
  mapped = jax.shard_map(step, mesh=make_mesh(), in_specs=P(DATA_AXIS), out_specs=P(DATA_AXIS))
  jax.make_jaxpr(mapped)(jnp.zeros((8, *SHAPE[1:]), jnp.bfloat16))
  assert ("cudnn", SHAPE) in taken and not caplog.messages
  assert attention.fastest_form(SHAPE, "bfloat16", "gpu") == "cudnn"
  assert attention.fastest_form(SHAPE, "float32", "gpu") == "xla"

  taken.clear()
  shape = jax.export.symbolic_shape(f"b, {', '.join(map(str, SHAPE[1:]))}")
  jax.export.export(jax.jit(loss))(jax.ShapeDtypeStruct(shape, jnp.bfloat16))
  assert {form for form, _ in taken} == {"xla"}
