import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.pixel import confidence_weighted_loss, cross_entropy, supervised_loss
from tests import golden
from tests.losses.law import value_and_grad

_VALUE = {"rtol": 1e-5}
_GRAD = {"rtol": 1e-3, "atol": 1e-7}


def _labels(target: np.ndarray) -> np.ndarray:
  return np.where(target < 0, IGNORE, target)


@golden.cases("reco/sup_loss_*")
def test_supervised_loss_equals_the_original(case):
  logits, labels = golden.nhwc(case["predict"]), _labels(case["target"])
  loss, grad = jax.jit(jax.value_and_grad(supervised_loss))(logits, labels)
  np.testing.assert_allclose(loss, case["loss"], **_VALUE)
  np.testing.assert_allclose(grad, golden.nhwc(case["grad_predict"]), **_GRAD)
  np.testing.assert_allclose(cross_entropy(logits, labels), case["loss_none"], rtol=1e-5, atol=1e-6)


@golden.cases("reco/unsup_loss_*")
def test_confidence_weighted_loss_equals_the_original(case):
  logits, pseudo_label = golden.nhwc(case["predict"]), _labels(case["target"])
  loss, grad = jax.jit(jax.value_and_grad(confidence_weighted_loss))(
    logits, pseudo_label, case["logits"], case["strong_threshold"]
  )
  np.testing.assert_allclose(loss, case["loss"], **_VALUE)
  np.testing.assert_allclose(grad, golden.nhwc(case["grad_predict"]), **_GRAD)


@golden.cases("reco/unsup_loss_*")
def test_the_divisor_leaves_out_pixels_that_are_exactly_right(case):
  loss = cross_entropy(golden.nhwc(case["predict"]), _labels(case["target"]))
  assert int((loss > 0).sum()) == case["num_positive_loss_pixels"]


def _batch(images: int = 8) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """A weight and a batch in which images differ in their numbers of labels, one having none."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 5, (images, 6, 7)).astype(np.int32)
  for image in range(images):
    labels[image][rng.random((6, 7)) < image / (images - 1)] = IGNORE
  batch = {
    "features": rng.normal(size=(images, 6, 7, 3)).astype(np.float32),
    "labels": labels,
    "confidence": rng.random((images, 6, 7), np.float32),
  }
  return rng.normal(size=(3, 5)).astype(np.float32), batch


def _supervised(weight, batch, axis_name=None):
  return supervised_loss(batch["features"] @ weight, batch["labels"], axis_name)


def _weighted(weight, batch, axis_name=None):
  logits = batch["features"] @ weight
  return confidence_weighted_loss(logits, batch["labels"], batch["confidence"], 0.6, axis_name)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("loss", [_supervised, _weighted])
def test_devices_share_one_mean(loss, devices):
  weight, batch = _batch()
  expected = jax.value_and_grad(loss)(weight, batch)
  actual = value_and_grad(lambda w, b: loss(w, b, "data"), devices, weight, batch)
  jax.tree.map(
    lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-7), actual, expected
  )


@pytest.mark.parametrize("loss", [_supervised, _weighted])
def test_the_order_of_images_is_immaterial(loss):
  weight, batch = _batch()
  order = np.random.default_rng(1).permutation(8)
  permuted = jax.tree.map(lambda x: x[order], batch)
  np.testing.assert_allclose(loss(weight, permuted), loss(weight, batch), rtol=1e-6)


def test_logits_of_any_size_keep_the_gradient_finite():
  logits = jnp.array([[[[1e30, 0, -1e30], [-1e4, 1e4, 0.0]]]])
  labels = jnp.array([[[1, 0]]])
  loss, grad = jax.value_and_grad(supervised_loss)(logits, labels)
  assert loss > 1e20 and jnp.isfinite(grad).all()
