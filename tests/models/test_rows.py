import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.models.layers import Maker
from semiseg_jax.models.rows import RowHead
from tests import golden
from tests.devices import DEVICES
from tests.golden.fill import fill
from tests.losses.law import value_and_grad
from tests.models import parts, torch_layout

_HEADS = golden.vectors("memory_bank/*_heads*")
TOLERANCE = 1e-5  # of the largest value: two matrix products in float32


def _head(in_dim, dim, axis_name=None):
  return parts.split(RowHead(in_dim, dim, Maker(np.random.default_rng(0), axis_name=axis_name)))


@functools.partial(jax.jit, static_argnums=(0, 5))
def _run(network, params, batch_stats, rows, mask, train):
  return network.apply(params, batch_stats, lambda head: head(rows, mask, train))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("name", "case"), _HEADS.items(), ids=_HEADS)
def test_heads_equal_the_original(name, case, train):
  manifest = golden.load_json(f"memory_bank/{name.partition('_heads')[0]}.manifest.json")
  weights = fill({key: shape for key, shape in manifest.items() if "_head." in key})
  params, batch_stats = torch_layout.to_trees(weights)
  mode = "train" if train else "eval"
  rows = case["input"]
  for head, expected in (("projection_head", "projected"), ("prediction_head", "predicted")):
    network, _, _ = _head(*params[head]["0"]["kernel"].shape)
    mask = np.ones(len(rows), bool)
    rows, after = _run(network, params[head], batch_stats[head], rows, mask, train)
    _assert_close(rows, case[f"{mode}.{expected}"])
    for leaf in ("mean", "var"):
      if train:
        _assert_close(after["1"][leaf], case[f"train.after.{head}.1.running_{leaf}"])
      else:
        np.testing.assert_array_equal(after["1"][leaf], batch_stats[head]["1"][leaf])


def _assert_close(ours, theirs):
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


def _rows(num_rows=16, dim=6):
  rng = np.random.default_rng(1)
  rows = rng.normal(1.0, 2.0, (num_rows, dim)).astype(np.float32)
  return rows, rng.random(num_rows) < 0.5


def test_the_rows_that_count_are_computed_as_if_alone():
  network, params, batch_stats = _head(6, 5)
  rows, mask = _rows()
  assert 2 <= mask.sum() < len(mask)
  y, after = _run(network, params, batch_stats, rows, mask, True)
  alone, expected = _run(network, params, batch_stats, rows[mask], np.ones(mask.sum(), bool), True)
  np.testing.assert_allclose(y[mask], alone, rtol=1e-5, atol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), after, expected)
  x = rows[mask].astype(np.float64) @ params["0"]["kernel"] + params["0"]["bias"]
  np.testing.assert_allclose(after["1"]["mean"], 0.1 * x.mean(0), rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(after["1"]["var"], 0.9 + 0.1 * x.var(0, ddof=1), rtol=1e-5)
  assert jnp.isfinite(y).all()


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_rows_leave_the_statistics(count):
  network, params, batch_stats = _head(6, 5)
  rows, mask = _rows()
  mask = np.arange(len(rows)) < count

  def loss(params):
    y, after = _run(network, params, batch_stats, rows, mask, True)
    return jnp.where(mask[:, None], y, 0).sum(), after

  (value, after), grads = jax.value_and_grad(loss, has_aux=True)(params)
  jax.tree.map(np.testing.assert_array_equal, after, batch_stats)
  assert np.isfinite(value)
  assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))


def _loss_and_statistics(network, params, batch_stats, rows, mask, weight):
  run = lambda head: head(rows, mask, True)
  y, after = network.apply(params, batch_stats, run)
  return jnp.where(mask[:, None], weight * y, 0).sum(), after


@pytest.mark.parametrize("devices", DEVICES)
def test_the_law_of_n_devices(devices):
  """Value, gradients and statistics, with rows that count unevenly and not at all on some."""
  rows, mask = _rows(32)
  mask[:8] = False
  weight = np.random.default_rng(2).normal(size=(32, 5)).astype(np.float32)
  network, params, batch_stats = _head(6, 5)
  _, after = _loss_and_statistics(network, params, batch_stats, rows, mask, weight)
  probe = jax.tree.map(lambda x: np.arange(x.size, dtype=np.float32).reshape(x.shape), after)

  def loss(params, batch, network, devices):
    value, after = _loss_and_statistics(network, params, batch_stats, *batch)
    moved = sum(jnp.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (probe, after)), strict=True))
    return devices * value + moved  # the mean over devices of both is what one device has

  batch = (rows, mask, weight)
  expected = jax.jit(jax.value_and_grad(lambda params: loss(params, batch, network, 1)))(params)
  synchronised, _, _ = _head(6, 5, axis_name="data")
  of_device = lambda params, batch: loss(params, batch, synchronised, devices)
  value, grads = value_and_grad(of_device, devices, params, batch)
  np.testing.assert_allclose(value, expected[0], rtol=1e-5)
  largest = max(np.abs(grad).max() for grad in jax.tree.leaves(expected[1]))
  near = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest)
  jax.tree.map(near, grads, expected[1])
