import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from semiseg_jax.collectives import as_varying
from semiseg_jax.models.batch_norm import EPSILON, batch_moments, normalise_batch
from semiseg_jax.models.layers import Maker
from semiseg_jax.models.resnet import Bottleneck
from semiseg_jax.models.trunk import Style, run_block


def _of_mesh(function, count, in_specs, out_specs):
  axis = jax.sharding.AxisType.Auto
  mesh = jax.make_mesh((count,), ("data",), (axis,), devices=jax.devices()[:count])
  return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)


def _defined(x, slope, scale, bias):
  """y, moments and the gradients of sum(y * slope) by x, scale and bias, in float64."""
  x, slope, scale, bias = (np.asarray(a, np.float64) for a in (x, slope, scale, bias))
  axes = tuple(range(x.ndim - 1))
  mean, var = x.mean(axes), x.var(axes)
  unit = (x - mean) / np.sqrt(var + EPSILON)
  of_scale, of_bias = (slope * unit).sum(axes), slope.sum(axes)
  count = x.size / x.shape[-1]
  of_x = (slope - of_bias / count - unit * of_scale / count) * scale / np.sqrt(var + EPSILON)
  return unit * scale + bias, (mean, var), (of_x, of_scale, of_bias)


def _drawn(shape, seed=0, mean=0.0):
  rng = np.random.default_rng(seed)
  x, slope = rng.normal(mean, 1.0, shape), rng.normal(size=shape)
  channels = (1 + rng.random(shape[-1]), rng.normal(size=shape[-1]))
  return tuple(a.astype(np.float32) for a in (x, slope, *channels))


def _computed(x, slope, scale, bias, near, axis_name=None):
  y, pull, moments = jax.vjp(
    lambda *args: (lambda y, *moments: (y, moments))(*normalise_batch(*args, near, axis_name)),
    x, scale, bias, has_aux=True,
  )  # fmt: skip
  return y, moments, pull(slope)


@pytest.mark.parametrize("shape", [(2, 6, 7, 3), (3, 1, 1, 4), (13, 5), (2, 3, 4, 5, 2)])
def test_values_and_gradients_are_those_of_the_definition(shape):
  arrays = _drawn(shape)
  near = np.linspace(-2, 2, shape[-1], dtype=np.float32)
  got = jax.jit(_computed)(*arrays, near)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got,
               _defined(*arrays))  # fmt: skip


@pytest.mark.parametrize("mean", [0.0, 1e3, -1e5])
def test_variance_does_not_cancel_wherever_the_mean_is(mean):
  x = _drawn((4, 16, 16, 8), mean=mean)[0]
  x[..., 0] = mean  # a variance of 0 stays one
  x[0, 0, 0, 1] = mean + 10  # an outlier where the first part begins
  ours, var = jax.jit(lambda x: batch_moments(x, np.zeros(8, np.float32), None))(x)
  exact = np.asarray(x, np.float64)
  np.testing.assert_allclose(ours, exact.mean((0, 1, 2)), rtol=2e-7, atol=1e-6)
  np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=2e-5)
  assert (np.asarray(var) >= 0).all()


def test_devices_far_from_the_running_mean_and_from_each_other_agree_with_one():
  x, slope, scale, bias = _drawn((8, 6, 5, 3), mean=30.0)
  x += np.arange(8, dtype=np.float32)[:, None, None, None]
  near = np.zeros(3, np.float32)

  def per_device(x, slope, scale, bias, near):
    y, moments, (of_x, *others) = _computed(
      x, slope, *as_varying((scale, bias), "data"), near, "data"
    )
    return y, moments, (of_x, *jax.lax.psum(others, "data"))

  whole, cut = P(), P("data")
  run = _of_mesh(per_device, 8, (cut, cut, whole, whole, whole), (cut, whole, (cut, whole, whole)))
  got = jax.jit(run)(x, slope, scale, bias, near)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), got,
               _defined(x, slope, scale, bias))  # fmt: skip


def test_devices_exchange_one_message_forward_and_one_backward():
  x, slope, scale, bias = _drawn((4, 6, 5, 3))

  def per_device(x, slope, scale, bias):
    return _computed(x, slope, *as_varying((scale, bias), "data"), bias, "data")[2]

  cut = P("data")
  run = _of_mesh(per_device, 4, (cut, cut, P(), P()), (cut, cut, cut))
  text = jax.jit(run).lower(x, slope, scale, bias).compile().as_text()
  count = lambda kind: sum(f" {kind}(" in line for line in text.splitlines())
  assert (count("all-gather"), count("all-reduce")) == (0, 2)


def test_bfloat16_is_normalised_in_float32():
  x, slope, scale, bias = _drawn((2, 16, 16, 3), mean=20.0)
  x, slope = (jnp.asarray(a, jnp.bfloat16) for a in (x, slope))
  y, moments, slopes = jax.jit(_computed)(x, slope, scale, bias, np.zeros(3, np.float32))
  assert (y.dtype, slopes[0].dtype) == (jnp.bfloat16, jnp.bfloat16)
  exact, exact_moments, exact_slopes = _defined(x, slope, scale, bias)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3),
               (moments, slopes[1:]), (exact_moments, exact_slopes[1:]))  # fmt: skip
  for got, expected in ((y, exact), (slopes[0], exact_slopes[0])):
    np.testing.assert_allclose(np.asarray(got, np.float32), expected, rtol=2**-8, atol=1e-4)


def test_backward_pass_keeps_nothing_of_the_size_of_its_input_but_that():
  x = jnp.zeros((2, 8, 8, 4), jnp.bfloat16)
  channels = jnp.ones(4)
  _, pull = jax.vjp(lambda *args: normalise_batch(*args, None)[0], x, channels, channels, channels)
  kept = [(a.shape, a.dtype) for a in jax.tree.leaves(pull) if a.size > 4]
  assert kept == [(x.shape, x.dtype)]


def test_elementwise_remat_recomputes_batch_norm_from_its_moments():
  make = Maker(np.random.default_rng(0), jnp.bfloat16)
  graph, state = nnx.split(Bottleneck(16, 4, 1, (1, 1), Style(), make))
  x = jnp.ones((2, 8, 8, 16), jnp.bfloat16)

  def run(state, x, remat):
    return run_block(nnx.merge(graph, state), x, True, remat)

  def readings(remat):  # of batches and of gradients
    loss = lambda *args: run(*args, remat).astype(jnp.float32).sum()
    gradient = jax.grad(loss, argnums=(0, 1))
    return str(jax.make_jaxpr(gradient)(state, x)).count("optimization_barrier")

  _, pull = jax.vjp(lambda *args: run(*args, "elementwise"), state, x)
  kept = sorted(a.shape[-1] for a in jax.tree.leaves(pull) if a.shape[:-1] == x.shape[:-1])
  assert kept == [4, 4, 16, 16]  # outputs of the convolutions, and the input
  assert (readings("none"), readings("elementwise"), readings("blocks")) == (6, 6, 9)
