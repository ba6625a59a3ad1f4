"""DST-CBC's and DMT's losses: values and gradients of the originals, and the same on N devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.labels import IGNORE
from semiseg_jax.losses import dynamic
from semiseg_jax.losses.pixel import mean_where
from tests import golden
from tests.losses import law

VALUE, GRADIENT = {"rtol": 1e-5, "atol": 1e-6}, {"rtol": 1e-5, "atol": 1e-8}


def learnt(logits, labels, weigh, count, axis_name=None):
  """The loss where the first `count` images are pseudo-labelled: weigh(logits, labels) gives their
  labels and weights."""
  own, weights = weigh(logits[:count], labels[:count])
  weights = jnp.concatenate([weights, jnp.ones(labels[count:].shape)])
  labels = jnp.concatenate([own, labels[count:]])
  return dynamic.weighted_mean_loss(logits, labels, weights, axis_name)


def assert_equal(case, name, row, weigh, labels, count):
  logits = jnp.asarray(golden.nhwc(case["logits"]))
  value, grad = jax.value_and_grad(learnt)(logits, labels, weigh, count)
  wanted, wanted_grad = case[f"{name}loss"], case[f"{name}grad"]
  np.testing.assert_allclose(value, wanted[row], **VALUE)
  np.testing.assert_allclose(grad, golden.nhwc(wanted_grad[row]), **GRADIENT)


@golden.cases("dst_cbc/dynamic_loss*")
def test_dynamic(case):
  labels = jnp.asarray(golden.known(case["targets"]))
  for row, (gamma, split) in enumerate(zip(case["gamma"], case["split_index"], strict=True)):
    weigh = lambda z, y, gamma=float(gamma): (y, dynamic.dynamic_weights(z, y, gamma))
    assert_equal(case, "", row, weigh, labels, max(int(split), 0))
  nothing = jnp.full_like(labels, IGNORE)
  logits = jnp.asarray(golden.nhwc(case["logits"]))
  value, grad = jax.value_and_grad(learnt)(logits, nothing, weigh, 2)
  assert np.isnan(value) and np.isnan(case["all_ignored_loss"])
  assert not case["all_ignored_grad_is_nan"] and not np.any(grad)


@golden.cases("dst_cbc/offline_weight_loss*")
def test_stored(case):
  labels, count = jnp.asarray(golden.known(case["targets"])), int(case["split_index"])
  for row, gamma in enumerate(case["gamma"].tolist()):
    weigh = lambda z, y, gamma=gamma: (y, jnp.asarray(case["confidence"]) ** gamma)
    assert_equal(case, "", row, weigh, labels, count)


@golden.cases("dst_cbc/mutual_loss*")
def test_mutual_and_its_ablations(case):
  labels = jnp.asarray(golden.known(case["targets"][:, 0].astype(int)))
  count = int(case["split_index"])
  confidence = jnp.asarray(case["targets"][:count, 1])
  logits = jnp.asarray(golden.nhwc(case["logits"]))
  for row, gammas in enumerate(zip(case["gamma1"].tolist(), case["gamma2"].tolist(), strict=True)):
    if not any(gammas):
      continue  # plain cross-entropy, below
    mutual = lambda z, y, g=gammas: (y, dynamic.mutual_weights(z, y, confidence, *g))
    flip = lambda z, y, g=gammas: dynamic.flipped(z, y, confidence, *g)
    for name, weigh in (("mutual", mutual), ("flip", flip)):
      assert_equal(case, f"{name}_", row, weigh, labels, count)
      _, weights = weigh(logits[:count], labels[:count])
      every = jnp.concatenate([weights, jnp.ones(labels[count:].shape)])
      is_label = labels != IGNORE
      stats = [
        dynamic.disagrees(logits[:count], labels[:count]).sum(),
        dynamic.is_won(logits[:count], labels[:count], confidence).sum(),
        mean_where(every, is_label, None),
      ]
      np.testing.assert_allclose(stats, case[f"{name}_stats"][row][:3], rtol=1e-5)
  plain = lambda z, y: (y, jnp.ones(y.shape))
  whole = {key: case[key][None] for key in case if key.endswith(("_loss", "_grad"))}
  arrays = {**case, **{key: whole[key] for key in whole if whole[key].ndim in (1, 5)}}
  assert_equal(arrays, "supervised_", 0, plain, labels, 0)
  naive = lambda z, y: (y, dynamic.dynamic_weights(z, y, 5.0))
  assert_equal(arrays, "naive_", 0, naive, labels, count)
  before = jnp.asarray(golden.known(case["online_targets_before"]))
  online = lambda z, y: (dynamic.online_labels(z, 0.9), jnp.ones(y.shape))
  assert_equal(arrays, "online_", 0, online, before, count)
  np.testing.assert_array_equal(
    dynamic.online_labels(logits[:count], 0.9), case["online_targets_after"][:count]
  )


@pytest.mark.parametrize("devices", [2, 8])
def test_law_of_n_devices(devices):
  rng = np.random.default_rng(0)
  inputs, labels = rng.normal(size=(8, 6, 5, 4)), rng.integers(0, 7, (8, 6, 5))
  confidence = rng.uniform(size=(8, 6, 5))
  labels[:3] = IGNORE
  labels[labels == 5] = IGNORE
  weight = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
  batch = jax.tree.map(jnp.asarray, (np.float32(inputs), labels, np.float32(confidence)))

  def loss(weight, batch, axis_name="data"):
    x, y, q = batch
    logits = x @ weight
    weights = dynamic.mutual_weights(logits, y, q, 3.0, 2.0)
    return dynamic.weighted_mean_loss(logits, y, weights, axis_name)

  found = law.value_and_grad(loss, devices, weight, batch)
  wanted = jax.value_and_grad(lambda w: loss(w, batch, None))(weight)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, wanted)
