"""Every loss that a config may name: against pytorch-segmentation's, on devices, at the edges."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.hard_pixels import CITYSCAPES_WEIGHTS, focal_terms
from semiseg_jax.losses.labeled import LOSSES, make_loss
from semiseg_jax.losses.region import lovasz_hinge_loss, lovasz_softmax_loss
from semiseg_jax.losses.soft import consistency_loss, kld_loss, uncertainty_loss
from tests import golden
from tests.losses.law import value_and_grad
from tests.losses.recorded import check, names, number

_ZOO = {
  "BCEWithLogitsFocalLoss2d": {"name": "bce_focal"},
  "BCEWithLogitsLoss2d": {"name": "bce"},
  "BDiceLoss": {"name": "bce_dice"},
  "CE_DiceLoss": {"name": "ce_dice"},
  "CrossEntropyLoss2d": {"name": "ce"},
  "DiceLoss": {"name": "dice"},
  "FocalLoss": {"name": "zoo_focal"},
  "LogCoshDiceLoss": {"name": "log_cosh_dice"},
  "LovaszSoftmax": {"name": "lovasz_softmax"},
  "lovasz_classes_all": {"name": "lovasz_softmax", "classes": "all"},
  "lovasz_per_image": {"name": "lovasz_softmax", "per_image": True},
}
_CASES = golden.vectors("segmentation_zoo/losses*")


def named(**config):
  given = ", ".join(f"{key}={value!r}" for key, value in config.items() if key != "name")
  loss = make_loss(f"{config['name']}({given})" if given else config["name"])
  return lambda logits, labels, axis_name=None: loss(logits, labels, 5, 100, axis_name)


def of_zoo(name: str, case: golden.Vector) -> dict:
  """The config of one of the recorded losses, such as "DiceLoss_smooth0p1"."""
  config = dict(_ZOO[max((known for known in _ZOO if name.startswith(known)), key=len)])
  for field, letters in (("gamma", "g"), ("smooth", "smooth")):
    if re.search(rf"_{letters}\d", name):
      config[field] = number(name, letters, 0)
  if re.search("_weighted|_alpha", name):
    config["class_weights"] = tuple(case["class_weight"].tolist())
  return config


@pytest.mark.parametrize("case", _CASES.values(), ids=_CASES)
@pytest.mark.parametrize("known", _ZOO)
def test_losses_equal_the_zoos(case, known):
  belongs = lambda name: max((k for k in _ZOO if name.startswith(k)), key=len) == known
  for name in filter(belongs, names(case, ".*__.*")):
    recorded, kind = name.split("__")
    nothing = np.full_like(case["target_full"], IGNORE)
    labels = golden.known(case.get(f"target_{kind}", nothing), IGNORE)
    loss = named(**of_zoo(recorded, case))
    if recorded.endswith("_sum"):
      settings = {"gamma": number(recorded, "g", 2), "class_weights": case["class_weight"]}
      terms = functools.partial(focal_terms, **settings)
      loss = lambda x, y, terms=terms: terms(x, y).sum()
    check(case, name, loss, golden.nhwc(case["logits"]), labels)


@golden.cases("c3_semiseg/losses*", "ce_dice*")
def test_cross_entropy_and_dice_equal_c3s(case):
  for kind in ("no", "with"):
    labels = case["target" if kind == "with" else "target_no_ignore"]
    logits = golden.nhwc(case["logits"])
    check(case, f"ce_dice_{kind}_ignore", named(name="ce_dice"), logits, labels)


@golden.cases("c3_semiseg/losses*", "abce*")
def test_the_annealed_loss_follows_the_step(case):
  loss, steps = LOSSES["abce"](), int(np.prod(case["abce_epochs_iters"]))
  at_step = jax.jit(lambda step: loss(golden.nhwc(case["logits"]), case["target"], step, steps))
  for step in case["abce_curr_iter"].tolist():
    expected = case[f"abce_iter{step}__value"]
    np.testing.assert_allclose(at_step(step), expected, rtol=1e-5)


@golden.cases("c3_semiseg/lovasz*", "stable_bce*")
def test_binary_cross_entropy_of_one_class_equals_c3s(case):
  for name, kind in (("stable_bce", "_no_ignore"), ("binary_xloss", "")):
    labels = case[f"binary_labels{kind}"]
    labels = np.where(labels == IGNORE, IGNORE, 1 - labels)  # the only class has number 0
    loss = named(name="bce", ignored_as_negative=False)
    check(case, name, loss, case["binary_logits"][..., None], labels)


_WEIGHTS = (0.5, 1.0, 2.0, 0.1, 3.0)
_EVERY = {name: named(name=name) for name in LOSSES} | {
  "abce, few": named(name="abce", threshold=0.0, min_kept=7),
  "bce, labelled": named(name="bce", ignored_as_negative=False),
  "bce_dice, labelled": named(name="bce_dice", ignored_as_negative=False),
  "bce_focal, labelled": named(name="bce_focal", of_mean=False, ignored_as_negative=False),
  "ce, weighted": named(name="ce", class_weights=_WEIGHTS),
  "dice, labelled": named(name="dice", ignored_as_smallest=False),
  "focal, all": named(name="focal", mean="all", class_weights=_WEIGHTS),
  "focal, valid": named(name="focal", mean="valid"),
  "lovasz, all": named(name="lovasz_softmax", classes="all"),
  "lovasz, image": named(name="lovasz_softmax", per_image=True),
  "masked_ce, weighted": named(name="masked_ce", class_weights=_WEIGHTS),
  "ohem, few": named(name="ohem", threshold=0.1, min_kept=50, class_weights=_WEIGHTS),
  "consistency": lambda x, y, axis_name: consistency_loss(
    x, jnp.roll(x, 1, -1), y != IGNORE, axis_name
  ),
  "kld": lambda x, y, axis_name: kld_loss(x, y != IGNORE, axis_name),
  "uncertainty": uncertainty_loss,
  "hinge": lambda x, y, axis_name: lovasz_hinge_loss(x[..., 0], _binary(y), False, axis_name),
  "hinge, image": lambda x, y, axis_name: lovasz_hinge_loss(x[..., 0], _binary(y), True, axis_name),
  "lovasz, two": lambda x, y, axis_name: lovasz_softmax_loss(
    jax.nn.softmax(x), y, (1, 3), axis_name=axis_name
  ),
}


def _binary(labels):
  return jnp.where(labels == IGNORE, IGNORE, labels % 2)


def _batch() -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """A weight for each loss and images that differ in their numbers of labels, one having none."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 4, (8, 6, 7)).astype(np.int32)  # class 4 is absent
  for image, pixels in enumerate(labels):
    pixels[rng.random((6, 7)) < image / 7] = IGNORE
  features = rng.normal(size=(8, 6, 7, 3)).astype(np.float32)
  weights = rng.normal(size=(len(_EVERY), 3, 5)).astype(np.float32)
  return weights, {"features": features, "labels": labels}


def _values(weights, batch, axis_name=None) -> jax.Array:
  """Of every loss, with a weight of its own: their sum's gradient has a row for each."""
  logits = (batch["features"] @ weight for weight in weights)
  pairs = zip(_EVERY.values(), logits, strict=True)
  return jnp.stack([loss(x, batch["labels"], axis_name) for loss, x in pairs])


@jax.jit
def _values_and_grads(weights, batch):
  def total(weights):
    values = _values(weights, batch)
    return values.sum(), values

  grads, values = jax.grad(total, has_aux=True)(weights)
  return values, grads


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_devices_compute_what_one_would(devices):
  weights, batch = _batch()
  values, grads = _values_and_grads(weights, batch)
  assert all(np.abs(grads).max(axis=(1, 2)) > 1e-5)
  # Each value has a factor of its own, so that in the sum of all no two may have changed places.
  factors = np.arange(1, len(_EVERY) + 1)
  loss = lambda w, b: (factors * _values(w, b, "data")).sum()
  total, scaled = value_and_grad(loss, devices, weights, batch)
  np.testing.assert_allclose(total, (factors * values).sum(), rtol=1e-5)
  for name, row, factor, expected in zip(_EVERY, scaled, factors, grads, strict=True):
    np.testing.assert_allclose(row / factor, expected, rtol=1e-4, atol=1e-6, err_msg=name)


_NAN_WITHOUT_LABEL = {"ce", "ce_dice", "ohem", "ohem, few"}


def test_without_a_labelled_pixel_gradients_are_zero():
  weights, batch = _batch()
  batch["labels"][:] = IGNORE
  values, grads = _values_and_grads(weights, batch)
  assert {name for name, value in zip(_EVERY, values, strict=True) if np.isnan(value)} == (
    _NAN_WITHOUT_LABEL
  )
  for name, value, grad in zip(_EVERY, values, grads, strict=True):
    if not (name.startswith("bce") and "labelled" not in name):  # there, they are negatives
      assert not value > 0 and not grad.any(), name


@pytest.mark.parametrize("label", [0, 4])
def test_one_labelled_pixel_is_enough(label):
  weights, batch = _batch()
  batch["labels"][:] = IGNORE
  batch["labels"][3, 2, 1] = label
  values, grads = _values_and_grads(weights, batch)
  assert np.isfinite(values).all() and np.isfinite(grads).all()


@pytest.mark.parametrize("scale", [0, 1e4])
def test_sure_predictions_and_none_keep_gradients_finite(scale):
  weights, batch = _batch()
  values, grads = _values_and_grads(scale * weights, batch)
  assert np.isfinite(values).all() and np.isfinite(grads).all()


def test_half_precision_counts_in_float32():
  logits = jnp.zeros((1, 4, 4, 5), jnp.bfloat16)
  labels = jnp.zeros((1, 4, 4), jnp.int32)
  for name, loss in _EVERY.items():
    shape = jax.eval_shape(functools.partial(loss, axis_name=None), logits, labels)
    assert shape.dtype == jnp.float32, name


def test_class_weights_of_another_number_are_refused():
  loss = named(name="ohem", class_weights=CITYSCAPES_WEIGHTS)
  with pytest.raises(ValueError, match="19 numbers for 5 classes"):
    loss(jnp.zeros((1, 2, 2, 5)), jnp.zeros((1, 2, 2), jnp.int32))


@pytest.mark.parametrize(
  "config, message",
  [
    ({"name": "ohm"}, "did you mean 'ohem'"),
    ({"name": "dice", "smoth": 1.0}, "did you mean 'smooth'"),
    ({"name": "focal", "mean": "some"}, "choose from 'broadcast'"),
    ({"name": "lovasz_softmax", "classes": "some"}, "choose from 'present'"),
  ],
)
def test_what_no_loss_has_is_refused(config, message):
  with pytest.raises(ValueError, match=message):
    named(**config)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("focel", "did you mean 'focal'"),
    ("focal(gama=2.0)", "did you mean 'gamma'"),
    ("focal(gamma='high')", "focal.gamma='high' must be a number"),
    ("focal(2.0)", r"with fields: focal\(gamma=2.0\)"),
    ("focal(**{'gamma': 2.0})", "should be a name"),
    ("focal(gamma=open('x'))", "should be a name"),
    ("focal.__call__()", "should be a name"),
    ("focal(gamma=2.0", "should be a name"),
    ("", "should be a name"),
  ],
)
def test_what_names_no_loss_is_refused(text, message):
  with pytest.raises(ValueError, match=rf"config\.method\.supervised_loss.*{message}"):
    make_loss(text)
