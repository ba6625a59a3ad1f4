import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.region import (
  dice_loss,
  lovasz_hinge_loss,
  lovasz_softmax_loss,
  lovasz_weights,
)
from tests import golden
from tests.losses.recorded import VALUE, check, names, number


@golden.cases("c3_semiseg/losses*", "dice__value")
def test_dice_equals_c3s(case):
  logits = golden.nhwc(case["logits"])
  labels = {"no_ignore": "target_no_ignore", "without_class0": "target_without_class0"}
  for name in names(case, "dice.*"):
    target, smooth = case[labels.get(name[5:], "target")], number(name, "smooth", 1)
    check(case, name, dice_loss, logits, target, smooth)
    if f"{name}__target_after" in case:
      after = case[f"{name}__target_after"]
      check(case, name, dice_loss, logits, after, smooth, ignored_as_smallest=False)


def test_dice_may_leave_out_ignored_pixels():
  rng = np.random.default_rng(0)
  logits, labels = rng.normal(size=(2, 4, 6, 3)), rng.integers(0, 3, (2, 4, 6))
  labels[:, 2:] = IGNORE
  found = dice_loss(logits, labels, ignored_as_smallest=False)
  expected = dice_loss(logits[:, :2], labels[:, :2])
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  assert abs(dice_loss(logits, labels) - expected) > 1e-3


@golden.cases("c3_semiseg/lovasz*")
def test_lovasz_softmax_equals_the_original(case):
  probs = golden.nhwc(case["probas"])
  for name in names(case, r"softmax_.*_perimg\d"):
    chosen, per_image = name[8:].split("_perimg")
    classes = tuple(map(int, chosen.split("_")[1:])) or chosen
    rest = case["labels"], classes, per_image == "1"
    check(case, name, lovasz_softmax_loss, probs, *rest)
  check(case, "softmax_ignore_none", lovasz_softmax_loss, probs, case["labels_no_ignore"])


@golden.cases("c3_semiseg/losses*", "lovasz_module__value")
def test_lovasz_of_a_softmax_equals_the_original(case):
  of_logits = lambda x, labels: lovasz_softmax_loss(jax.nn.softmax(x), labels)
  for name, kind in (("", "target"), ("_single", "target_single_class")):
    logits = golden.nhwc(case[f"logits{name}"])
    check(case, f"lovasz_module{name}", of_logits, logits, case[kind])


@golden.cases("c3_semiseg/lovasz*")
def test_binary_lovasz_equals_the_original(case):
  labels = case["binary_labels"]
  for name in names(case, r"hinge_perimg\d"):
    per_image = name.endswith("1")
    check(case, name, lovasz_hinge_loss, case["binary_logits"], labels, per_image)
  nothing = np.full_like(labels, IGNORE)
  check(case, "hinge_all_ignored", lovasz_hinge_loss, case["binary_logits"], nothing)
  both = lambda x: jnp.stack([1 - x, x], axis=-1)
  loss = lambda x: lovasz_softmax_loss(both(x), labels, classes=(1,))
  check(case, "sigmoid_c1", loss, case["sigmoid_probas"])


@golden.cases("c3_semiseg/lovasz*")
def test_lovasz_weights_equal_the_original(case):
  for name in (name for name in case if name.startswith("grad_gt")):
    foreground = case[name] == 1
    falling = -np.arange(foreground.size, dtype=np.float32)
    found = jax.jit(lovasz_weights)(falling[None], foreground[None])
    np.testing.assert_allclose(
      found[0], case[name.replace("grad_gt", "lovasz_grad")], rtol=1e-5, atol=1e-7
    )


def test_lovasz_of_sure_predictions_is_one_minus_iou():
  rng = np.random.default_rng(2)
  labels, guesses = rng.integers(0, 3, (2, 2, 5, 7))
  labels[0, 3:] = IGNORE
  valid = labels != IGNORE
  hit = lambda c: ((labels == c) & (guesses == c)).sum()
  union = lambda c: (valid & ((labels == c) | (guesses == c))).sum()
  expected = np.mean([1 - hit(c) / union(c) for c in range(3)])
  found = jax.jit(lovasz_softmax_loss)(np.eye(3)[guesses], labels)
  np.testing.assert_allclose(found, expected, **VALUE)


def test_weights_of_millions_of_pixels_add_up_and_stay_positive():
  """1 - IoU of all is 1; differences of neighbours would be rounded to nothing."""
  foreground = np.arange(3_000_000)[None] % 2 == 0
  errors = np.linspace(1, 0, foreground.size, dtype=np.float32)[None]
  weights = np.asarray(jax.jit(lovasz_weights)(errors, foreground), np.float64)
  np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
  assert (weights[foreground] > 0).all()
