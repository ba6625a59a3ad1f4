import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.pixel import (
  class_weighted_loss,
  confidence_weighted_loss,
  cross_entropy,
  entropy_loss,
  masked_cross_entropy,
  pseudo_label_loss,
  pseudo_label_weights,
  supervised_loss,
)
from tests import golden
from tests.devices import DEVICES
from tests.losses.law import value_and_grad
from tests.losses.recorded import check, names

_VALUE = {"rtol": 1e-5}
_GRAD = {"rtol": 1e-3, "atol": 1e-7}
_PIXEL = {"rtol": 1e-5, "atol": 1e-6}  # losses near 0 are differences of larger numbers


@golden.cases("reco/sup_loss_*")
def test_supervised_loss_equals_the_original(case):
  logits, labels = golden.nhwc(case["predict"]), golden.known(case["target"])
  loss, grad = jax.jit(jax.value_and_grad(supervised_loss))(logits, labels)
  np.testing.assert_allclose(loss, case["loss"], **_VALUE)
  np.testing.assert_allclose(grad, golden.nhwc(case["grad_predict"]), **_GRAD)
  np.testing.assert_allclose(cross_entropy(logits, labels), case["loss_none"], **_PIXEL)


@golden.cases("reco/unsup_loss_*")
def test_confidence_weighted_loss_equals_the_original(case):
  logits, pseudo_label = golden.nhwc(case["predict"]), golden.known(case["target"])
  loss, grad = jax.jit(jax.value_and_grad(confidence_weighted_loss))(
    logits, pseudo_label, case["logits"], case["strong_threshold"]
  )
  np.testing.assert_allclose(loss, case["loss"], **_VALUE)
  np.testing.assert_allclose(grad, golden.nhwc(case["grad_predict"]), **_GRAD)


@golden.cases("reco/unsup_loss_*")
def test_the_divisor_leaves_out_pixels_that_are_exactly_right(case):
  loss = cross_entropy(golden.nhwc(case["predict"]), golden.known(case["target"]))
  assert int((loss > 0).sum()) == case["num_positive_loss_pixels"]


@golden.cases("memory_bank/cross_entropy*")
def test_weighted_cross_entropies_equal_the_original(case):
  logits = golden.nhwc(case["logits"])
  known = lambda name: golden.known(case[name], case["ignore_label"])
  labels, negative = known("labels"), known("labels_negative")
  weights, ones = case["class_weights"], np.ones_like(case["class_weights"])
  by_class = jax.jit(jax.value_and_grad(class_weighted_loss))
  for class_weights, kind in ((weights, ""), (ones, "_unweighted")):
    loss, grad = by_class(logits, labels, class_weights)
    np.testing.assert_allclose(loss, case[f"sup_loss{kind}"], **_VALUE)
    np.testing.assert_allclose(grad, golden.nhwc(case[f"sup_grad{kind}"]), **_GRAD)
  loss, _ = by_class(logits, negative, weights)
  np.testing.assert_allclose(loss, case["sup_loss_negative"], **_VALUE)
  loss, grad = jax.jit(jax.value_and_grad(pseudo_label_loss))(
    logits, labels, case["pixel_weights"], weights
  )
  np.testing.assert_allclose(loss, case["pixel_loss"], **_VALUE)
  np.testing.assert_allclose(grad, golden.nhwc(case["pixel_grad"]), **_GRAD)


@pytest.mark.parametrize("broadcast", [False, True])
@golden.cases("memory_bank/entropy*")
def test_the_entropy_equals_the_original(case, broadcast):
  kind = "_broadcast" if broadcast else ""
  labels = np.where(case["mask"][:, 0] > 0, 0, IGNORE)
  loss = lambda logits: entropy_loss(logits, labels, broadcast=broadcast)
  value, grad = jax.jit(jax.value_and_grad(loss))(golden.nhwc(case["logits"]))
  np.testing.assert_allclose(value, case[f"loss{kind}"], **_VALUE)
  np.testing.assert_allclose(grad, golden.nhwc(case[f"grad_logits{kind}"]), **_GRAD)


@golden.cases("memory_bank/pseudo_weight*")
def test_weights_of_pseudo_labels_equal_the_original(case):
  weights = jax.vmap(pseudo_label_weights, (None, 0, None))(
    case["max_probs"], case["iterations"], case["ramp_up_iters"]
  )
  np.testing.assert_allclose(weights, case["pixel_weights"], **_VALUE)


@golden.cases("c3_semiseg/losses*", "maskce*")
def test_masked_cross_entropy_equals_the_original(case):
  masks = {
    "ones1": np.ones(1),
    "zero_mask": np.zeros_like(case["mask_binary"]),
    **{name: case[f"mask_{name}"] for name in ("binary", "fractional")},
  }
  for name in names(case, "maskce_.*"):
    labels = case["target_all_ignored" if name.endswith("all_ignored") else "target"]
    weights = case["class_weight"] if name.endswith("weighted") else None
    mask = masks.get(name.removeprefix("maskce_"), 1.0)
    logits = golden.nhwc(case["logits"])
    check(case, name, masked_cross_entropy, logits, labels, mask, weights)


@golden.cases("c3_semiseg/losses*", "ce_mean__value")
def test_cross_entropies_equal_c3s(case):
  logits, labels = golden.nhwc(case["logits"]), case["target"]
  check(case, "ce_mean", supervised_loss, logits, labels)
  check(case, "ce_sum", lambda x: cross_entropy(x, labels).sum(), logits)
  check(case, "ce_weighted_mean", class_weighted_loss, logits, labels, case["class_weight"])


@golden.cases("c3_semiseg/lovasz*", "xloss__value")
def test_cross_entropy_of_lovaszs_code_is_the_same(case):
  check(case, "xloss", supervised_loss, golden.nhwc(case["xloss_logits"]), case["labels"])


@pytest.mark.parametrize("name", ["class", "pseudo_label", "entropy", "entropy_broadcast"])
def test_without_a_labelled_pixel_the_loss_is_zero(name):
  weight, batch = _batch()
  batch["labels"][:] = IGNORE
  loss, grad = jax.value_and_grad(_LOSSES[name])(weight, batch)
  assert loss == 0 and not grad.any()


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


_CLASS_WEIGHTS = np.array([0.5, 1.0, 2.0, 0.1, 3.0], np.float32)


def _class_weighted(weight, batch, axis_name=None):
  logits = batch["features"] @ weight
  return class_weighted_loss(logits, batch["labels"], _CLASS_WEIGHTS, axis_name)


def _pseudo_label(weight, batch, axis_name=None):
  pixel_weights = pseudo_label_weights(batch["confidence"], 1500, 2000)
  logits = batch["features"] @ weight
  return pseudo_label_loss(logits, batch["labels"], pixel_weights, _CLASS_WEIGHTS, axis_name)


def _entropy(weight, batch, axis_name=None, broadcast=False):
  logits = batch["features"] @ weight
  return entropy_loss(logits, batch["labels"], axis_name, broadcast=broadcast)


_LOSSES = {
  "supervised": _supervised,
  "confidence_weighted": _weighted,
  "class": _class_weighted,
  "pseudo_label": _pseudo_label,
  "entropy": _entropy,
  "entropy_broadcast": functools.partial(_entropy, broadcast=True),
}


@functools.cache
def _on_one_device(name):
  return jax.jit(jax.value_and_grad(_LOSSES[name]))(*_batch())


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("name", _LOSSES)
def test_devices_share_one_mean(name, devices):
  weight, batch = _batch()
  loss, expected = _LOSSES[name], _on_one_device(name)
  actual = value_and_grad(lambda w, b: loss(w, b, "data"), devices, weight, batch)
  jax.tree.map(
    lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-7), actual, expected
  )


@pytest.mark.parametrize("name", _LOSSES)
def test_the_order_of_images_is_immaterial(name):
  loss = _LOSSES[name]
  weight, batch = _batch()
  order = np.random.default_rng(1).permutation(8)
  permuted = jax.tree.map(lambda x: x[order], batch)
  np.testing.assert_allclose(loss(weight, permuted), _on_one_device(name)[0], rtol=1e-6)


def test_logits_of_any_size_keep_the_gradient_finite():
  logits = jnp.array([[[[1e30, 0, -1e30], [-1e4, 1e4, 0.0]]]])
  labels = jnp.array([[[1, 0]]])
  loss, grad = jax.value_and_grad(supervised_loss)(logits, labels)
  assert loss > 1e20 and jnp.isfinite(grad).all()
