import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg_jax.labels import IGNORE
from semiseg_jax.models.selectors import block_rows
from tests import golden
from tests.devices import DEVICES
from tests.golden.fill import fill
from tests.losses.law import value_and_grad
from tests.models import parts, stacked

_CLASSES, _DIM = 4, 5
SCORE, STATISTIC = 1e-5, 1e-6  # float32 through two layers, and of one mean


@functools.partial(jax.jit, static_argnums=(0, 5))
def _scores(network, params, batch_stats, rows, classes, train, update=None):
  run = lambda selectors: selectors(rows, classes, train, update)
  return network.apply(params, batch_stats, run)


@pytest.mark.parametrize("train", [False, True])
@golden.cases("memory_bank/*_heads*")
def test_a_selector_equals_the_original(case, train):
  mode = "train" if train else "eval"
  recorded = [key for key in case if key.startswith(f"{mode}.selector_")]
  assert recorded
  for key in recorded:
    selector, rows = key.removeprefix(f"{mode}.selector_").split("_of_")
    rows = case[f"{mode}.{rows}"]
    if selector.startswith("memory"):
      rows = _normalised(rows)
    prefix = stacked.PIXELS + selector.replace("_", "")  # memory_20 is ..._selector_memory20
    scores, after = _one_selector(prefix, rows, train)
    np.testing.assert_allclose(scores, case[key][:, 0], rtol=SCORE)
    names = [f"train.after.{prefix}.1.running_{name}" for name in ("mean", "var")]
    if train and names[0] in case:
      statistics = {"1": {"mean": case[names[0]][None], "var": case[names[1]][None]}}
      stacked.assert_close(after, statistics, STATISTIC)


def _one_selector(prefix, rows, train):
  dim = rows.shape[1]
  shapes = {"0.weight": (dim, dim), "0.bias": (dim,), "3.weight": (1, dim), "3.bias": (1,)}
  norm = ("weight", "bias", "running_mean", "running_var")
  shapes |= {f"1.{name}": (dim,) for name in norm}
  state = fill({f"{prefix}.{key}": shape for key, shape in shapes.items()})
  state = {key.replace(prefix, "0"): value for key, value in state.items()}
  network, _, _ = parts.split(stacked.selectors(1, dim))
  trees = stacked.params(state, "", 1), stacked.statistics(state, "", 1)
  return _scores(network, *trees, rows, np.zeros(len(rows), np.int32), train)


def _normalised(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _rows(seed=0, num_rows=80):
  """Rows of 4 classes: many, few, one and none, and some rows without a class."""
  rng = np.random.default_rng(seed)
  rows = rng.normal(1.0, 2.0, (num_rows, _DIM)).astype(np.float32)
  classes = rng.choice([0, 1, IGNORE, -1], num_rows, p=[0.6, 0.1, 0.2, 0.1]).astype(np.int32)
  classes[num_rows // 2] = 2
  return rows, classes


def _network():
  network, params, batch_stats = parts.split(stacked.selectors(_CLASSES, _DIM))
  rng = np.random.default_rng(1)
  redraw = lambda x: (x + rng.random(x.shape)).astype(np.float32)
  return network, jax.tree.map(redraw, params), jax.tree.map(redraw, batch_stats)


def _one_class(params, batch_stats, rows, c, train):
  """Scores and statistics of one class's rows, in float64."""
  p = jax.tree.map(lambda x: np.float64(x[c]), params)
  old = jax.tree.map(lambda x: np.float64(x[c]), batch_stats)["1"]
  x = rows.astype(np.float64) @ p["0"]["kernel"] + p["0"]["bias"]
  mean, var, after = old["mean"], old["var"], old
  if train and len(rows) > 1:
    mean, var = x.mean(0), x.var(0)
    unbiased = x.var(0, ddof=1)
    after = {
      "mean": 0.9 * old["mean"] + 0.1 * mean,
      "var": 0.9 * old["var"] + 0.1 * unbiased,
    }
  x = (x - mean) / np.sqrt(var + 1e-5) * p["1"]["scale"] + p["1"]["bias"]
  x = np.where(x > 0, x, 0.2 * x)
  return 1 / (1 + np.exp(-(x @ p["3"]["kernel"] + p["3"]["bias"])))[:, 0], after


@pytest.mark.parametrize("train", [False, True])
def test_each_row_goes_through_its_own_class_alone(train):
  rows, classes = _rows()
  network, params, batch_stats = _network()
  scores, after = _scores(network, params, batch_stats, rows, classes, train)
  for c in range(_CLASSES):
    mine = classes == c
    expected, statistics = _one_class(params, batch_stats, rows[mine], c, train)
    if mine.sum() != 1 or not train:  # a batch of one row has no variance to normalise with
      np.testing.assert_allclose(scores[mine], expected, rtol=2e-5)
    for name in ("mean", "var"):
      np.testing.assert_allclose(after["1"][name][c], statistics[name], rtol=2e-5, atol=1e-6)
  assert jnp.isfinite(scores).all()
  assert (scores[(classes < 0) | (classes >= _CLASSES)] == 0).all()


def test_statistics_move_for_the_classes_that_may():
  rows, classes = _rows()
  network, params, batch_stats = _network()
  update = np.array([False, True, True, True])
  scores, after = _scores(network, params, batch_stats, rows, classes, True, update)
  moved = [(after["1"]["var"][c] != batch_stats["1"]["var"][c]).all() for c in range(_CLASSES)]
  assert moved == [False, True, False, False]  # excluded, 8 rows, one row, none
  free, _ = _scores(network, params, batch_stats, rows, classes, True, np.ones(4, bool))
  np.testing.assert_array_equal(scores, free)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1, 4), min_size=70, max_size=70))
def test_blocks_hold_every_row_of_a_class_once(classes):
  classes = np.array(classes, np.int32)
  blocks = jax.tree.map(np.asarray, _block_rows(classes))
  has_class = (classes >= 0) & (classes < 3)
  np.testing.assert_array_equal(np.sort(blocks.row[blocks.filled]), np.flatnonzero(has_class))
  of_place = np.broadcast_to(blocks.classes[:, None], blocks.row.shape)
  np.testing.assert_array_equal(classes[blocks.row[blocks.filled]], of_place[blocks.filled])
  np.testing.assert_array_equal(
    blocks.row.reshape(-1)[blocks.place[has_class]], np.flatnonzero(has_class)
  )


_block_rows = jax.jit(functools.partial(block_rows, num_classes=3))


def test_the_work_follows_the_rows_not_the_classes():
  for num_rows, num_classes in ((21125, 19), (131220, 21), (100, 19)):
    shape = jax.eval_shape(
      functools.partial(block_rows, num_classes=num_classes), jnp.zeros(num_rows, jnp.int32)
    ).row.shape
    assert shape[0] * shape[1] <= max(1.13 * num_rows, num_rows + 8 * num_classes)
    assert shape[0] <= max(9.1 * num_classes, num_rows / 8 + num_classes)


@pytest.mark.parametrize("devices", DEVICES)
def test_devices_share_one_batch_of_each_class(devices):
  rows, classes = _rows()
  target = np.random.default_rng(2).normal(size=len(rows)).astype(np.float32)
  network, params, batch_stats = _network()

  def loss(network, params, batch, devices):  # the mean over devices is the sum over all rows
    rows, classes, target = batch
    run = lambda selectors: selectors(rows, classes, True)
    scores, after = network.apply(params, batch_stats, run)
    return devices * (scores * target).sum() + after["1"]["var"].mean() + after["1"]["mean"].mean()

  batch = rows, classes, target
  expected = jax.jit(jax.value_and_grad(functools.partial(loss, network)), static_argnums=2)(
    params, batch, 1
  )
  shared, _, _ = parts.split(stacked.selectors(_CLASSES, _DIM, "data"))
  law_loss = lambda params, batch: loss(shared, params, batch, devices)
  value, grad = value_and_grad(law_loss, devices, params, batch)
  np.testing.assert_allclose(value, expected[0], rtol=1e-5)
  stacked.assert_close(grad, expected[1], 1e-5)
