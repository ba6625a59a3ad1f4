"""Counts and scores against the original's and against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.evaluation.metrics import (
  confusion_matrix,
  count_by_products,
  count_by_scattering,
  scores,
)
from semiseg_jax.labels import IGNORE
from tests import golden

FLOAT32 = 1e-6  # the originals' means are float32
FLOAT64 = 1e-12
COUNTS = {
  "platform": confusion_matrix,
  "products": count_by_products,
  "scatter": count_by_scattering,
}


@golden.cases("reco/metrics_*")
@pytest.mark.parametrize("count", COUNTS.values(), ids=COUNTS)
def test_equal_to_the_original(case, count):
  classes = int(case["num_classes"])
  target = golden.known(case["target"])
  matrix = sum(
    np.asarray(count(jnp.asarray(pred), jnp.asarray(label), classes), np.int64)
    for pred, label in zip(case["pred"], target, strict=True)
  )
  np.testing.assert_array_equal(matrix, case["mat"])
  found = scores(matrix)
  np.testing.assert_allclose(found.iou, case["iou"], rtol=FLOAT32)
  np.testing.assert_allclose(found.miou, case["miou"], rtol=FLOAT32)
  np.testing.assert_allclose(found.accuracy, case["acc"], rtol=FLOAT32)
  np.testing.assert_allclose(found.miou_present, np.nanmean(case["iou"]), rtol=FLOAT32)


@golden.cases("c3_semiseg/metrics*", holding="logits_f16")
def test_equal_to_c3s(case):
  """Running scores, rounded to three decimals; a class that is absent counts 0."""
  classes, total = int(case["num_classes"]), 0
  for step, (logits, target) in enumerate(zip(case["logits_f16"], case["target"], strict=True)):
    prediction = jnp.asarray(np.float32(logits)).argmax(1)
    matrix = np.asarray(confusion_matrix(prediction, jnp.asarray(target), classes), np.int64)
    total = total + matrix
    right, labeled, *areas = case["per_batch_correct_labeled_inter_union"][step].astype(int)
    assert (np.trace(matrix), matrix.sum()) == (right, labeled)
    union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    np.testing.assert_array_equal([*np.diag(matrix), *union], areas)
    found = scores(total)
    row = [found.accuracy, found.miou_zero, *np.nan_to_num(found.iou)]
    wanted = case["running_pixacc_miou_classiou"][step]
    np.testing.assert_allclose(row, wanted, rtol=0, atol=5.001e-4)
  found = confusion_matrix(
    jnp.asarray(case["cm_pred"]), jnp.asarray(case["cm_gt"]), len(case["cm"])
  )
  np.testing.assert_array_equal(found, case["cm"])


@pytest.mark.parametrize("count", COUNTS.values(), ids=COUNTS)
def test_rows_are_truth_and_foreign_labels_are_left_out(count):
  label = jnp.asarray([[[0, 0, 1], [2, IGNORE, 7]]], jnp.uint8)
  prediction = jnp.asarray([[[0, 1, 1], [0, 2, 2]]], jnp.int32)
  matrix = jax.jit(count, static_argnums=2)(prediction, label.astype(jnp.int32), 3)
  np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 0], [1, 0, 0]])
  assert matrix.dtype == jnp.int32


@pytest.mark.parametrize("count", COUNTS.values(), ids=COUNTS)
def test_large_counts_are_exact(count):
  label = jnp.zeros((2, 1500, 1001), jnp.int32)
  assert int(count(label, label, 2)[0, 0]) == label.size


def test_absent_classes():
  found = scores(np.array([[3, 0, 0], [1, 4, 0], [0, 0, 0]]))
  np.testing.assert_allclose(found.iou, [3 / 4, 4 / 5, np.nan])
  assert np.isnan(found.miou) and found.miou_present == pytest.approx((3 / 4 + 4 / 5) / 2)
  assert found.as_dict(["a", "b", "c"])["iou"] == {"a": 0.75, "b": 0.8, "c": None}
  assert found.as_dict()["miou"] is None


def test_a_class_that_is_only_predicted_counts_as_zero():
  assert scores(np.array([[3, 1], [0, 0]])).iou.tolist() == [0.75, 0.0]


def test_nothing_counted():
  found = scores(np.zeros((2, 2), np.int64))
  assert np.isnan([found.miou, found.miou_present, found.accuracy]).all()


@golden.cases("memory_bank/metric*")
def test_equal_to_the_memory_banks(case):
  classes = int(case["num_classes"])
  matrix = sum(
    np.asarray(confusion_matrix(jnp.asarray(pred), jnp.asarray(gt), classes), np.int64)
    for pred, gt in zip(case["pred"], case["gt"], strict=True)
  )
  np.testing.assert_array_equal(matrix, case["confusion"])
  found = scores(matrix)
  np.testing.assert_allclose(found.iou, case["iou_per_class_f64"], rtol=FLOAT64)
  np.testing.assert_allclose(found.miou, case["miou_f64"], rtol=FLOAT64)
