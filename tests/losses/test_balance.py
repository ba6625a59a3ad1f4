import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.balance import (
  ClassTables,
  add_labeled,
  add_unlabeled,
  class_weights,
  empty_tables,
)
from tests import golden
from tests.devices import DEVICES

FLOAT32 = 1e-6  # a root and a quotient


def _add(tables, labeled, unlabeled, axis_name=None):
  return add_unlabeled(add_labeled(tables, labeled, axis_name), unlabeled, axis_name)


def _labels(case, name):
  labels = case[name].astype(np.int32)
  return np.where((labels >= 0) & (labels < case["num_classes"]), labels, IGNORE)


@golden.cases("memory_bank/class_balancing*")
def test_tables_and_weights_equal_the_original(case):
  tables = empty_tables(
    *(int(case[f"{name}_iters"]) for name in ("labeled", "unlabeled")), int(case["num_classes"])
  )
  step, weigh = jax.jit(_add), jax.jit(class_weights)
  for labeled, unlabeled, expected in zip(
    _labels(case, "labeled"), _labels(case, "unlabeled"), case["weights"], strict=True
  ):
    tables = step(tables, labeled, unlabeled)
    expected = np.where(np.isnan(expected), 1, expected)  # the median was 0, and 0/0 is not used
    np.testing.assert_allclose(weigh(tables), expected, rtol=FLOAT32)
  np.testing.assert_array_equal(tables.labeled, case["final_labeled_frequencies"])
  oldest_first = np.roll(tables.unlabeled, -int(tables.step % len(tables.unlabeled)), axis=0)
  np.testing.assert_array_equal(oldest_first, case["final_unlabeled_frequencies"])


def test_labelled_rows_are_kept_and_unlabelled_rows_slide():
  tables = empty_tables(2, 3, 4)
  batch = lambda c, pixels: np.repeat([c, IGNORE], [pixels, 12 - pixels]).reshape(1, 3, 4)
  for step in range(5):
    tables = _add(tables, batch(0, step + 1), batch(1, step + 1))
  np.testing.assert_array_equal(tables.labeled[:, 0], [1, 2])
  assert sorted(tables.unlabeled[:, 1].tolist()) == [3, 4, 5]
  np.testing.assert_allclose(class_weights(tables) ** 2, [1.5 / 3, 1.5 / 12, 1, 1], rtol=1e-6)


def test_weights_wait_for_both_tables():
  for filled, rows in ((3, (2, 4)), (3, (4, 2)), (4, (2, 4))):
    tables = empty_tables(*rows, 3).replace(step=np.int32(filled))
    tables = tables.replace(labeled=tables.labeled.at[0].set(np.array([1, 4, 16])))
    expected = [2, 1, 0.5] if filled == 4 else [1, 1, 1]
    np.testing.assert_allclose(class_weights(tables), expected)


@pytest.mark.parametrize("devices", DEVICES)
def test_devices_count_one_batch(devices):
  labels = np.random.default_rng(0).choice([0, 1, 2, IGNORE], (8, 5, 6)).astype(np.int32)
  mesh = jax.make_mesh(
    (devices,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
  )
  add = functools.partial(_add, axis_name="data")
  mapped = jax.shard_map(add, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P())
  ours = jax.jit(mapped)(empty_tables(2, 2, 3), labels, labels[::-1])
  expected = np.bincount(labels.reshape(-1), minlength=3)[:3]
  assert isinstance(ours, ClassTables) and ours.step == 1
  for table in (ours.labeled, ours.unlabeled):
    np.testing.assert_array_equal(table[0], expected)
    assert not table[1].any()
