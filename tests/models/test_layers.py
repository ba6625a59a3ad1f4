import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

from semiseg_jax.collectives import as_varying
from semiseg_jax.models.layers import BatchNorm, Conv, Sequential, dropout, max_pool
from tests import golden
from tests.devices import DEVICES
from tests.models import parts, torch_layout

STATISTIC = 1e-5  # of float32: sums in another order


def _conv_norm(channels=4, in_channels=3, axis_name=None):
  rng = np.random.default_rng(0)
  conv = Conv(in_channels, channels, 3, padding=1, rng=rng)
  return parts.split(Sequential([conv, BatchNorm(channels, axis_name=axis_name)]))


@golden.cases("reco/ema_bn_buffers*")
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_batch_norm_averages_its_own_statistics_like_the_original(case, who):
  part = lambda prefix: {k.removeprefix(prefix): v for k, v in case.items() if k.startswith(prefix)}
  network, _, _ = _conv_norm(*case["init/0.weight"].shape[:2])
  params, batch_stats = torch_layout.to_trees(part("init/"))
  for step, images in enumerate(case[f"{who}_input"]):
    _, batch_stats = parts.forward(network, params, batch_stats, np.moveaxis(images, 1, -1), True)
    params, expected = torch_layout.to_trees(part(f"{who}{step}/"))
    # the mean of values of about 1 may itself be next to 0
    _assert_trees_close(batch_stats, expected, rtol=STATISTIC, atol=1e-7)


def test_batch_norm_normalises_with_biased_and_averages_unbiased_variance():
  x = np.random.default_rng(0).normal(3.0, 2.0, (2, 3, 5, 4)).astype(np.float32)
  network, params, batch_stats = parts.split(BatchNorm(4))
  y, after = parts.forward(network, params, batch_stats, x, True)
  flat = x.reshape(-1, 4).astype(np.float64)
  expected = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
  np.testing.assert_allclose(y.reshape(-1, 4), expected, atol=2e-6)
  np.testing.assert_allclose(after["mean"], 0.1 * flat.mean(0), rtol=1e-5)
  np.testing.assert_allclose(after["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)


def test_batch_norm_keeps_float32_statistics_of_bfloat16_activations():
  x = jnp.asarray(np.random.default_rng(0).normal(100.0, 1.0, (2, 16, 16, 4)), jnp.bfloat16)
  network, params, batch_stats = parts.split(BatchNorm(4))
  y, after = parts.forward(network, params, batch_stats, x, True)
  assert y.dtype == jnp.bfloat16
  assert after["mean"].dtype == jnp.float32
  exact = np.asarray(x, np.float64).reshape(-1, 4)
  np.testing.assert_allclose(after["var"], 0.9 + 0.1 * exact.var(0, ddof=1), rtol=1e-4)


def test_batch_norm_refuses_to_train_on_one_value_per_channel():
  network, params, batch_stats = parts.split(BatchNorm(4))
  x = np.ones((1, 1, 1, 4), np.float32)
  with pytest.raises(ValueError, match="at least 2 images"):
    parts.forward(network, params, batch_stats, x, True)
  parts.forward(network, params, batch_stats, x, False)


@pytest.mark.parametrize("count", DEVICES)
def test_synchronised_batch_norm_obeys_the_law_of_n_devices(count):
  rng = np.random.default_rng(1)
  x = (rng.normal(size=(8, 5, 7, 3)) + rng.normal(size=(8, 1, 1, 3)) * 2).astype(np.float32)
  weight = rng.normal(size=(8, 5, 7, 4)).astype(np.float32)

  def loss_and_stats(params, batch_stats, x, weight, network):
    y, after = parts.forward(network, params, batch_stats, x, True)
    return (nnx.relu(y) * weight).mean(), after

  network, params, batch_stats = _conv_norm()
  one = jax.value_and_grad(loss_and_stats, argnums=(0, 2), has_aux=True)
  expected = jax.jit(one, static_argnums=4)(params, batch_stats, x, weight, network)

  synchronised, _, _ = _conv_norm(axis_name="data")

  def per_device(params, batch_stats, x, weight):
    def loss_fn(params, x):
      loss, after = loss_and_stats(params, batch_stats, x, weight, synchronised)
      return as_varying(loss, "data"), after

    run = jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)
    (loss, after), (grad, grad_x) = run(as_varying(params, "data"), x)
    return (lax.pmean(loss, "data"), after), (lax.pmean(grad, "data"), grad_x / count)

  mesh = jax.make_mesh(
    (count,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:count]
  )
  mapped = jax.shard_map(
    per_device,
    mesh=mesh,
    in_specs=(P(), P(), P("data"), P("data")),
    out_specs=((P(), P()), (P(), P("data"))),
  )
  _assert_trees_close(
    jax.jit(mapped)(params, batch_stats, x, weight), expected, rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("size", [5, 6, 7, 8])
def test_max_pool_takes_the_maximum_of_each_window(size, padding, ceil_mode):
  x = np.random.default_rng(0).normal(size=(1, size, size + 1, 2)).astype(np.float32) - 10
  y = np.asarray(max_pool(x, 3, 2, padding, ceil_mode))
  windows = [_windows(n, padding, ceil_mode) for n in x.shape[1:3]]
  assert y.shape[1:3] == tuple(map(len, windows))
  for i, rows in enumerate(windows[0]):
    for j, columns in enumerate(windows[1]):
      np.testing.assert_array_equal(y[0, i, j], x[0, rows, columns].max((0, 1)))


def _windows(n, padding, ceil_mode, size=3, stride=2):
  """PyTorch's windows as slices of the input: ceil mode lets the last one hang over the edge."""
  starts = range(-padding, n + padding if ceil_mode else n + 2 * padding, stride)
  fits = lambda start: start + size <= n + padding
  overhangs = lambda start: ceil_mode and start < n and start - stride + size < n + padding
  return [slice(max(s, 0), s + size) for s in starts if fits(s) or overhangs(s)]


def test_ceil_mode_adds_a_window_on_even_sizes_only():
  sizes = [max_pool(np.zeros((1, n, n, 1), np.float32), 3, 2, 1, True).shape[1] for n in (8, 9)]
  assert sizes == [5, 5]


def test_conv_pads_symmetrically_whatever_the_stride():
  x = np.random.default_rng(0).normal(size=(1, 6, 6, 2)).astype(np.float32)
  conv = Conv(2, 3, 3, stride=2, padding=1, use_bias=True, rng=np.random.default_rng(0))
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  kernel, bias = np.asarray(conv.kernel[...]), np.asarray(conv.bias[...])
  for i in range(3):
    window = padded[0, 2 * i : 2 * i + 3, 2:5]
    np.testing.assert_allclose(
      conv(x)[0, i, 1], np.einsum("hwi,hwio->o", window, kernel) + bias, rtol=1e-5, atol=1e-6
    )


def test_default_initialisation_is_uniform_in_the_fan_in():
  conv = Conv(64, 64, 3, use_bias=True, rng=np.random.default_rng(0))
  bound = 1 / np.sqrt(3 * 3 * 64)
  for weight in (conv.kernel[...], conv.bias[...]):
    assert np.abs(weight).max() <= bound
    assert np.abs(weight).max() > 0.9 * bound
  np.testing.assert_allclose(np.std(conv.kernel[...]), bound / np.sqrt(3), rtol=0.02)


def test_dropout_keeps_the_mean_and_draws_for_each_image():
  x = np.full((3, 40, 40, 8), 2.0, np.float32)
  keys = jax.random.split(jax.random.key(0), 3)
  y = np.asarray(dropout(x, 0.25, keys))
  kept = y != 0
  np.testing.assert_allclose(y[kept], 2 / 0.75, rtol=1e-6)
  np.testing.assert_allclose(kept.mean((1, 2, 3)), 0.75, atol=0.02)
  np.testing.assert_array_equal(dropout(x[1:], 0.25, keys[1:]), y[1:])  # whoever else is there
  assert not np.array_equal(kept[0], kept[1])
  assert dropout(x, 0.25, None) is x


def test_a_function_takes_a_number_but_holds_nothing():
  layers = Sequential([nnx.relu, Conv(1, 1, 1, rng=np.random.default_rng(0))])
  _, params, batch_stats = parts.split(layers)
  assert list(params) == ["1"]
  assert batch_stats == {}


def _assert_trees_close(ours, expected, **tolerance):
  check = lambda a, b: np.testing.assert_allclose(a, b, **tolerance)
  jax.tree.map(check, ours, expected)
