"""UniMatch's losses, from the teacher's logits on, against the original's training loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.augment.mix import mix_reversed
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.hard_pixels import ohem_loss
from semiseg_jax.losses.pixel import confident_loss, cross_entropy, supervised_loss
from semiseg_jax.models.decision import most_likely
from tests import golden

VALUE = {"rtol": 1e-5, "atol": 1e-6}
GRAD = {"rtol": 1e-5, "atol": 1e-7}


def view(case, number):
  """The weak view's labels, as recorded, mixed for one of the strong views."""
  weak = {
    "image": jnp.float32(golden.nhwc(case[f"strong{number}_level"])),
    "label": jnp.int32(case["label"]),
    "confidence": jnp.asarray(case["conf"]),
    "valid": jnp.asarray(case["ignore_mask"] != IGNORE),
  }
  return mix_reversed(weak, case[f"box{number}"] == 0)


def of_labelled(case, logits):
  labels = jnp.int32(case["mask_x"])
  if "ohem_min_kept" in case:
    return ohem_loss(logits, labels, _threshold(case), int(case["ohem_min_kept"]))
  return supervised_loss(logits, labels)


def _threshold(case):
  return float(next((case[name] for name in case if name.startswith("ohem_thresh")), 0.7))


@golden.cases("unimatch_v2/unsup_*")
def test_a_step_from_the_teachers_logits_to_the_loss(case):
  label, confidence = most_likely(golden.nhwc(case["teacher_logits"]))
  np.testing.assert_array_equal(label, case["label"])
  np.testing.assert_allclose(confidence, case["conf"], rtol=0, atol=1e-6)
  numbers = [number for number in "12" if f"logits_s{number}" in case]
  threshold = float(case["conf_thresh_f64"])
  mixed = {number: view(case, number) for number in numbers}
  for number, found in mixed.items():
    recorded = {name: case[f"mixed_{name}{number}"] for name in ("label", "conf", "ignore")}
    np.testing.assert_array_equal(found["label"], recorded["label"])
    np.testing.assert_array_equal(found["confidence"], recorded["conf"])
    np.testing.assert_array_equal(found["valid"], recorded["ignore"] != IGNORE)
    image = golden.nhwc(case[f"mixed_strong{number}_level"])
    np.testing.assert_array_equal(found["image"], image)

  def loss(logits):
    of_views = [
      confident_loss(
        logits[number], *(mixed[number][key] for key in ("label", "confidence", "valid")), threshold
      )
      for number in numbers
    ]
    supervised, unsupervised = of_labelled(case, logits["x"]), sum(of_views) / len(of_views)
    return 0.5 * (supervised + unsupervised), (supervised, unsupervised, of_views)

  names = {"x": "x"} | {number: f"s{number}" for number in numbers}
  logits = {key: golden.nhwc(case[f"logits_{name}"]) for key, name in names.items()}
  (total, parts), grads = jax.value_and_grad(loss, has_aux=True)(logits)
  np.testing.assert_allclose(total, case["loss"], **VALUE)
  np.testing.assert_allclose(parts[0], case["loss_x"], **VALUE)
  np.testing.assert_allclose(parts[1], case["loss_u"], **VALUE)
  for number, value in zip(numbers, parts[2], strict=True):
    if f"loss_u{number}" in case:
      np.testing.assert_allclose(value, case[f"loss_u{number}"], **VALUE)
  for key, name in names.items():
    # over no valid pixel the original's gradient is NaN; ours is 0, and the loss tells
    recorded = np.nan_to_num(golden.nhwc(case[f"grad_logits_{name}"]))
    np.testing.assert_allclose(grads[key], recorded, **GRAD, err_msg=name)


@golden.cases("unimatch_v2/ce_*")
def test_cross_entropy(case):
  logits, labels = golden.nhwc(case["logits"]), jnp.int32(case["label"])
  loss, grad = jax.value_and_grad(supervised_loss)(logits, labels)
  np.testing.assert_allclose(loss, case["loss"], **VALUE)
  np.testing.assert_allclose(grad, golden.nhwc(case["grad_logits"]), **GRAD)


@golden.cases("unimatch_v2/ohem_*", holding="min_kept")
def test_ohem(case):
  logits, labels = golden.nhwc(case["logits"]), jnp.int32(case["label"])
  weights = jnp.asarray(case["class_weights"]) if "class_weights" in case else None
  function = jax.jit(jax.value_and_grad(ohem_loss), static_argnums=3)
  grads = {}
  for i, min_kept in enumerate(np.atleast_1d(case["min_kept"])):
    loss, grads[i] = function(
      logits, labels, float(case.get("thresh", 0.7)), int(min_kept), weights
    )
    np.testing.assert_allclose(loss, np.atleast_1d(case["loss"])[i], **VALUE, err_msg=str(min_kept))
    if "num_kept" in case:
      kept = (np.abs(grads[i]).sum(-1) > 0).sum()
      assert kept == np.atleast_1d(case["num_kept"])[i], min_kept
  for name in (name for name in case if name.startswith("grad_logits") and name[-5:] != "index"):
    index = int(case.get(f"{name}_index", 0))
    np.testing.assert_allclose(grads[index], golden.nhwc(case[name]), **GRAD)


@pytest.mark.parametrize("threshold", [0.5, 0.0])
def test_what_is_not_confident_counts_in_the_divisor_alone(threshold):
  logits = jax.random.normal(jax.random.key(0), (1, 2, 2, 3))
  label = jnp.zeros((1, 2, 2), jnp.int32)
  confidence = jnp.array([[[0.5, 0.4], [0.9, 0.9]]])
  valid = jnp.array([[[True, True], [True, False]]])
  counted = (confidence >= threshold) & valid
  expected = jnp.where(counted, cross_entropy(logits, label), 0).sum() / 3
  found = confident_loss(logits, label, confidence, valid, threshold)
  np.testing.assert_allclose(found, expected, rtol=1e-6)
