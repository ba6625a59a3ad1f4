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
from tests.losses.recorded import VALUE

GRADIENT = {"rtol": 1e-5, "atol": 1e-8}
ONLINE_THRESHOLD, NAIVE_GAMMA = 0.9, 5.0  # of the vectors, as their description has it


def learnt(logits, labels, weigh, count, axis_name=None):
  """(loss, (mean weight, unweighted loss)) where the first `count` images are pseudo-labelled:
  weigh(logits, labels) gives their labels and weights."""
  own, weights = weigh(logits[:count], labels[:count])
  weights = jnp.concatenate([weights, jnp.ones(labels[count:].shape)])
  labels = jnp.concatenate([own, labels[count:]])
  mean = mean_where(weights, labels != IGNORE, axis_name)
  plain = dynamic.weighted_mean_loss(logits, labels, jnp.ones_like(weights), axis_name)
  return dynamic.weighted_mean_loss(logits, labels, weights, axis_name), (mean, plain)


def assert_equal(logits, labels, weigh, count, loss, grad) -> list:
  """As recorded; returns the mean weight and the unweighted loss."""
  (value, stats), found = jax.value_and_grad(learnt, has_aux=True)(logits, labels, weigh, count)
  np.testing.assert_allclose(value, loss, **VALUE)
  np.testing.assert_allclose(found, golden.nhwc(grad), **GRADIENT)
  return list(stats)


def plain(logits, labels):
  return labels, jnp.ones(labels.shape)


@golden.cases("dst_cbc/dynamic_loss*")
def test_dynamic(case):
  logits, labels = (
    jnp.asarray(golden.nhwc(case["logits"])),
    jnp.asarray(golden.known(case["targets"])),
  )
  rows = zip(case["gamma"].tolist(), case["split_index"], case["loss"], case["grad"], strict=True)
  for gamma, split, loss, grad in rows:
    weigh = lambda z, y, gamma=gamma: (y, dynamic.dynamic_weights(z, y, gamma))
    assert_equal(logits, labels, weigh, max(int(split), 0), loss, grad)
    nothing = jnp.full_like(labels, IGNORE)
    (value, _), grad = jax.value_and_grad(learnt, has_aux=True)(logits, nothing, weigh, 2)
    assert np.isnan(value) and np.isnan(case["all_ignored_loss"])
    assert not case["all_ignored_grad_is_nan"] and not np.any(grad)


@golden.cases("dst_cbc/offline_weight_loss*")
def test_stored(case):
  logits, labels = (
    jnp.asarray(golden.nhwc(case["logits"])),
    jnp.asarray(golden.known(case["targets"])),
  )
  confidence, count = jnp.asarray(case["confidence"]), int(case["split_index"])
  for gamma, loss, grad in zip(case["gamma"].tolist(), case["loss"], case["grad"], strict=True):
    weigh = lambda z, y, gamma=gamma: (y, confidence**gamma)
    assert_equal(logits, labels, weigh, count, loss, grad)


@pytest.mark.parametrize("name", ["mutual", "flip"])
@golden.cases("dst_cbc/mutual_loss*")
def test_mutual_and_flip(case, name):
  logits, count = jnp.asarray(golden.nhwc(case["logits"])), int(case["split_index"])
  labels = jnp.asarray(golden.known(case["targets"][:, 0].astype(int)))
  confidence = jnp.asarray(case["targets"][:count, 1])
  recorded = (case[f"{name}_{what}"] for what in ("loss", "grad", "stats"))
  for *gammas, loss, grad, stats in zip(
    case["gamma1"].tolist(), case["gamma2"].tolist(), *recorded, strict=True
  ):
    mutual = lambda z, y, g=gammas: (y, dynamic.mutual_weights(z, y, confidence, *g))
    flip = lambda z, y, g=gammas: dynamic.flipped(z, y, confidence, *g)
    weigh = {"mutual": mutual, "flip": flip}[name]
    found = assert_equal(logits, labels, weigh, count, loss, grad)
    np.testing.assert_allclose(found, stats[2:], rtol=1e-5)
    of_pseudo = logits[:count], labels[:count]
    counts = dynamic.disagrees(*of_pseudo).sum(), dynamic.is_won(*of_pseudo, confidence).sum()
    if any(gammas):  # otherwise the original does not count
      np.testing.assert_array_equal(counts, stats[:2])


@golden.cases("dst_cbc/mutual_loss*")
def test_other_losses_of_dmt(case):
  logits, count = jnp.asarray(golden.nhwc(case["logits"])), int(case["split_index"])
  labels = jnp.asarray(golden.known(case["targets"][:, 0].astype(int)))
  loss_of = lambda name: (case[f"{name}_loss"], case[f"{name}_grad"])
  assert_equal(logits, labels, plain, 0, *loss_of("supervised"))
  naive = lambda z, y: (y, dynamic.dynamic_weights(z, y, NAIVE_GAMMA))
  found = assert_equal(logits, labels, naive, count, *loss_of("naive"))
  np.testing.assert_allclose(found, case["naive_stats"], rtol=1e-5)
  before = jnp.asarray(golden.known(case["online_targets_before"]))
  online = lambda z, y: plain(z, dynamic.online_labels(z, ONLINE_THRESHOLD))
  assert_equal(logits, before, online, count, *loss_of("online"))
  after = case["online_targets_after"][:count]
  np.testing.assert_array_equal(online(logits[:count], None)[0], after)


@pytest.mark.parametrize("devices", [2, 8])
def test_law_of_n_devices(devices):
  rng = np.random.default_rng(0)
  inputs, labels = rng.normal(size=(8, 6, 5, 4)), rng.integers(0, 6, (8, 6, 5))
  confidence = rng.uniform(size=(8, 6, 5))
  labels[:3] = IGNORE
  labels[labels == 5] = IGNORE
  weight = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
  batch = jax.tree.map(jnp.asarray, (np.float32(inputs), labels, np.float32(confidence)))

  def loss(weight, batch, axis_name="data"):
    x, y, q = batch
    logits = x @ weight
    labels, weights = dynamic.flipped(logits, y, q, 3.0, 2.0)
    return dynamic.weighted_mean_loss(logits, labels, weights, axis_name)

  found = law.value_and_grad(loss, devices, weight, batch)
  wanted = jax.value_and_grad(lambda w: loss(w, batch, None))(weight)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, wanted)
