import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.losses.hard_pixels import (
  CITYSCAPES_WEIGHTS,
  annealed_loss,
  annealed_selection,
  focal_loss,
  focal_terms,
  ohem_loss,
  rising_threshold,
)
from semiseg_jax.losses.order import kth_smallest
from semiseg_jax.losses.pixel import cross_entropy
from tests import golden
from tests.losses.law import value_and_grad
from tests.losses.recorded import VALUE, check, names, number


@golden.cases("c3_semiseg/losses*", "ohem_params")
def test_ohem_equals_the_original(case):
  logits = golden.nhwc(case["logits"])
  for name in names(case, r"ohem\d+"):
    threshold, min_kept = case["ohem_params"][int(name[4:])].tolist()
    check(case, name, ohem_loss, logits, case["target"], threshold, int(min_kept))
  nothing = case["target_all_ignored"]
  check(case, "ohem_all_ignored_min0", ohem_loss, logits, nothing, min_kept=0)


@golden.cases("c3_semiseg/losses*", "ohem_use_weight__value")
def test_weighted_ohem_equals_the_original(case):
  (threshold, min_kept), weights = case["params"].tolist(), jnp.array(CITYSCAPES_WEIGHTS)
  rest = case["target"], threshold, int(min_kept), weights
  check(case, "ohem_use_weight", ohem_loss, golden.nhwc(case["logits"]), *rest)


@golden.cases("c3_semiseg/losses*", "abce_threshold")
def test_the_annealed_loss_equals_the_original(case):
  epochs, per_epoch = case["abce_epochs_iters"].tolist()
  logits, iterations = golden.nhwc(case["logits"]), case["abce_curr_iter"]
  rising = functools.partial(
    rising_threshold, ramp_steps=0.4 * epochs * per_epoch, num_classes=logits.shape[-1]
  )
  np.testing.assert_allclose(rising(iterations), case["abce_threshold"], **VALUE)
  settings = {
    "minkept_binding": (rising(0), 100),
    "minkept_huge": (rising(0), 10**6),
    "weighted": (rising(iterations[2]), 1, case["class_weight"]),
    "all_ignored": (rising(iterations[2]),),
  }
  for name in names(case, "abce_(?!sum).*"):
    threshold = number(name, "t", float(rising(number(name, "iter", 0))))
    arguments = settings.get(name.removeprefix("abce_"), (threshold,))
    labels = case["target_all_ignored" if name == "abce_all_ignored" else "target"]
    check(case, name, annealed_loss, logits, labels, *arguments)

  def added_up(logits):
    selected = annealed_selection(logits, case["target"], rising(iterations[3]), 1)
    return jnp.where(selected, cross_entropy(logits, case["target"]), 0).sum()

  check(case, "abce_sum", added_up, logits)


@golden.cases("c3_semiseg/schedules*")
def test_the_rising_threshold_equals_the_original(case):
  steps, recorded = int(np.prod(case["onecycle_epochs_iters"])), case["abce_threshold_19cls"]
  found = rising_threshold(np.arange(len(recorded)), 0.4 * steps, 19)
  np.testing.assert_allclose(found, recorded, rtol=1e-6)


@golden.cases("c3_semiseg/losses*", "focal*")
def test_the_focal_loss_equals_c3s(case):
  for name in names(case, "focal_(g.*|alpha)"):
    gamma, weights = number(name, "g", 1.5), case["class_weight"] if "alpha" in name else None
    check(case, name, focal_loss, golden.nhwc(case["logits"]), case["target"], gamma, weights)
  single, label = golden.nhwc(case["logits_single"]), case["target"][:1]
  for mean in ("broadcast", "valid"):  # the same for one image
    check(case, "focal_b1", focal_loss, single, label, mean=mean)
  added_up = lambda x: focal_terms(x, case["target"], 0.5).sum()
  check(case, "focal_sum", added_up, golden.nhwc(case["logits"]))


@pytest.mark.parametrize("devices", [1, 4])
def test_the_kth_smallest_is_that_of_all_devices(devices):
  values = np.random.default_rng(0).random((8, 5), np.float32)
  values[2, :3] = values[5, 1] = 0
  values[3] = values[0, 0]
  ranks = (1, 4, 5, 17, 40)
  # the gradient is of the factors, so that it holds every value
  found = lambda factors, values: sum(
    factor * kth_smallest(values, k, "data") for k, factor in zip(ranks, factors, strict=True)
  )
  _, found = value_and_grad(found, devices, jnp.ones(len(ranks)), values)
  np.testing.assert_array_equal(found, np.sort(values, axis=None)[np.array(ranks) - 1])


def test_more_than_there_are_is_no_number():
  assert jnp.isnan(kth_smallest(jnp.ones(3), 4)) and kth_smallest(jnp.ones(3), 3) == 1


@pytest.mark.parametrize("min_kept", [1, 7, 20])
def test_ohem_keeps_the_hardest(min_kept):
  """With a threshold of 0 and no two alike, exactly min_kept."""
  rng = np.random.default_rng(1)
  logits, labels = rng.normal(size=(2, 3, 5, 4)), rng.integers(0, 4, (2, 3, 5))
  expected = np.sort(cross_entropy(logits, labels), axis=None)[-min_kept:].mean()
  loss = jax.jit(ohem_loss, static_argnums=(2, 3))
  np.testing.assert_allclose(loss(logits, labels, 0.0, min_kept), expected, rtol=1e-6)
  weight = np.eye(4, dtype=np.float32)
  sharded = lambda w, batch: ohem_loss(batch[0] @ w, batch[1], 0.0, min_kept, axis_name="data")
  value, _ = value_and_grad(sharded, 2, weight, (np.float32(logits), labels))
  np.testing.assert_allclose(value, expected, rtol=1e-6)
