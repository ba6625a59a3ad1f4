import jax
import numpy as np

from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.pixel import masked_cross_entropy
from semiseg_jax.losses.soft import (
  consistency_loss,
  kld_loss,
  sharpen,
  smooth_labels,
  uncertainty_loss,
)
from tests import golden
from tests.losses.recorded import GRAD, VALUE, check


@golden.cases("c3_semiseg/losses*", "kld*")
def test_entropy_and_divergence_equal_the_original(case):
  logits, labels = golden.nhwc(case["logits"]), case["target"]
  check(case, "kld_no_target", kld_loss, logits)
  check(case, "kld_with_target", kld_loss, logits, labels == IGNORE)
  check(case, "entropy", uncertainty_loss, logits, labels)


@golden.cases("c3_semiseg/losses*", "sharpen*")
def test_sharpening_and_smoothing_equal_the_original(case):
  probs = jax.nn.softmax(golden.nhwc(case["logits"]))
  for name, temperature in (("t0p5", 0.5), ("t0p25", 0.25)):
    expected = golden.nhwc(case[f"sharpen_{name}"])
    np.testing.assert_allclose(sharpen(probs, temperature), expected, **VALUE)
  one_hot = golden.nhwc(case["onehot"])
  for name, settings in (("default", ()), ("c_eta0p2", (0.2, one_hot.shape[-1]))):
    expected = golden.nhwc(case[f"label_smooth_{name}"])
    np.testing.assert_allclose(smooth_labels(one_hot, *settings), expected, **VALUE)


@golden.cases("c3_semiseg/semi_step*")
def test_consistency_equals_the_step_without_cutmix(case):
  """The student's logits are shuffled as its images were; the step's loss is a weighted sum."""
  run = lambda name: case[f"no_cutmix_mask_unlabel__{name}"]
  drawn = np.clip(np.round(run("student_input")[:, 2]), 0, 18).astype(int)
  logits = np.moveaxis(case["student_noise"], 1, -1)
  logits = logits + np.moveaxis(case["student_strength"], 1, -1) * np.eye(19)[drawn]
  teacher = golden.nhwc(case["teacher_logits"])
  probs = np.asarray(jax.nn.softmax(teacher))
  mask = probs.max(axis=-1) >= run("thresholds_after")[probs.argmax(axis=-1)].astype(np.float32)
  mask &= probs.argmax(axis=-1) == case["unlabeled_target"]
  images = len(teacher)
  weight = (run("total") - run("loss_sup_loss")) / run("loss_consist_loss")

  def losses(logits):
    unshuffled = np.argsort(run("perm_flat"))
    logits = logits[unshuffled]
    supervised = masked_cross_entropy(logits[:images], case["labeled_target"])
    consistency = consistency_loss(logits[images:], teacher, mask)
    unmasked = consistency_loss(logits[images:], teacher)
    return supervised + weight * consistency, (supervised, consistency, unmasked)

  differentiate = jax.jit(jax.value_and_grad(losses, has_aux=True))
  (_, found), grad = differentiate(logits.astype(np.float32))
  expected = [run(f"loss_{name}_loss") for name in ("sup", "consist", "wo_cb")]
  np.testing.assert_allclose(found, expected, **VALUE)
  strided = golden.nhwc(run("grad_student_logits_strided"))
  np.testing.assert_allclose(grad[:, 1::3, 1::3, ::3], strided, **GRAD)


def test_the_teacher_gets_no_gradient_and_an_empty_mask_none_at_all():
  rng = np.random.default_rng(0)
  logits, teacher = rng.normal(size=(2, 2, 3, 4, 5)).astype(np.float32)
  grad = jax.jit(jax.grad(consistency_loss, argnums=1))(logits, teacher)
  assert not grad.any()
  differentiate = jax.jit(jax.value_and_grad(consistency_loss))
  value, grad = differentiate(logits, teacher, np.zeros((2, 3, 4)))
  assert value == 0 and not grad.any()


def test_probabilities_that_vanish_stay_finite():
  assert np.array_equal(sharpen(np.float32([[0, 1e-25, 0]]), 0.25), [[0, 1, 0]])
  logits = np.float32([[[[1e4, 0, -1e4]]]])
  for loss in (kld_loss, lambda x: uncertainty_loss(x, np.zeros((1, 1, 1), np.int32))):
    value, grad = jax.jit(jax.value_and_grad(loss))(logits)
    assert np.isfinite(value) and np.isfinite(grad).all()
