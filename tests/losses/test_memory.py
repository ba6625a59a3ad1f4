import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.bank import Bank, filled
from semiseg_jax.losses.memory import contrastive_loss, selected_contrast
from tests import golden
from tests.benchmarks import memory_bank
from tests.devices import DEVICES
from tests.losses.banks import from_contents
from tests.losses.law import value_and_grad
from tests.losses.pairwise import contrastive_loss_direct
from tests.models import parts, stacked

_VALUE, _GRAD, _STATISTIC = 1e-5, 1e-5, 1e-6  # of the largest: sums in another order


def _bank(case: dict[str, np.ndarray]) -> Bank:
  dim = case["features"].shape[1]
  nothing = np.zeros((0, dim), np.float32)
  rows = [case.get(f"bank.{c}", nothing) for c in range(case["num_classes"])]
  return from_contents(rows, max(map(len, rows)))


def _both(function, num_classes, case, prefix):
  """The stacked arrays of the pixels' and the memory's selectors."""
  sides = {"selectors": stacked.PIXELS, "memory_selectors": stacked.MEMORY}
  state = stacked.part(case, prefix)
  return {name: function(state, side, num_classes) for name, side in sides.items()}


@golden.cases("memory_bank/contrastive_*")
def test_the_contrast_equals_the_original(case):
  num_classes, dim = int(case["num_classes"]), case["features"].shape[1]
  network, _, _ = parts.split(stacked.Both(num_classes, dim))
  is_class = (case["labels"] >= 0) & (case["labels"] < num_classes)
  classes = np.where(is_class, case["labels"], IGNORE).astype(np.int32)
  params = _both(stacked.params, num_classes, case, "sel.")
  statistics = _both(stacked.statistics, num_classes, case, "sel.")
  bank = _bank(case)

  def loss(params, features):
    run = lambda both: selected_contrast(
      both.selectors, both.memory_selectors, features, classes, bank
    )
    return network.apply(params, statistics, run)

  run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
  (value, after), (grad, grad_features) = run(params, case["features"])
  np.testing.assert_allclose(value, case["loss"], rtol=_VALUE)
  assert not any(g.any() for g in jax.tree.leaves(grad["memory_selectors"]))
  if case["loss_is_constant_zero"]:
    assert value == 0 and not any(g.any() for g in jax.tree.leaves((grad, grad_features)))
    stacked.assert_close(after, statistics, 0)
    return
  stacked.assert_close(grad_features, case["grad.features"], _GRAD)
  selector_grads = stacked.part(case, "sel.") | stacked.part(case, "grad.sel.")
  expected = stacked.params(selector_grads, stacked.PIXELS, num_classes)
  skipped = [f"grad.sel.{stacked.PIXELS}{c}.1.bias" not in case for c in range(num_classes)]
  for array in jax.tree.leaves(expected):
    array[skipped] = 0  # the original has no gradient there
  stacked.assert_close(grad["selectors"], expected, _GRAD)
  stacked.assert_close(
    after, _both(stacked.statistics, num_classes, case, "after.sel."), _STATISTIC
  )


_K, _P, _S, _D = 4, 24, 16, 6  # classes, most pixels of one, slots of one, dimensions


def _data(seed: int = 0) -> dict[str, np.ndarray]:
  """Pixels by class in padded form, of any number; a bank ring that starts anywhere."""
  rng = np.random.default_rng(seed)
  pixels = rng.choice([0, 1, 2, 5, 13, _P], _K)
  count = rng.choice([0, 1, 2, 7, _S], _K)
  pixels[0], count[0] = _P, 7  # at least one class takes part
  return {
    "features": rng.normal(0.5, 1, (_K, _P, _D)).astype(np.float32),
    "is_pixel": np.arange(_P) < pixels[:, None],
    "scores": rng.random((_K, _P), np.float32),
    "rows": rng.normal(0.5, 2, (_K, _S, _D)).astype(np.float32),
    "memory_scores": rng.random((_K, _S), np.float32),
    "count": count.astype(np.int32),
    "head": rng.integers(0, _S, _K).astype(np.int32),
  }


def _flat(data: dict, order: np.ndarray | None = None) -> tuple:
  """(features, classes, scores) as one list of rows, in an order."""
  order = np.random.default_rng(0).permutation(_K * _P) if order is None else order
  classes = np.where(data["is_pixel"], np.arange(_K)[:, None], IGNORE)
  flat = data["features"].reshape(-1, _D), classes.reshape(-1), data["scores"].reshape(-1)
  return tuple(x[order] for x in flat)


@jax.jit
def _by_sums(features, classes, scores, bank, memory_scores):
  loss = lambda features, scores, memory_scores, bank: contrastive_loss(
    features, classes, scores, bank, memory_scores
  )
  grad = jax.value_and_grad(loss, argnums=(0, 1, 2, 3), allow_int=True)
  return grad(features, scores, memory_scores, bank)


@jax.jit
def _by_pairs(data):
  is_row = filled(Bank(data["rows"], data["count"], data["head"]))
  loss = lambda features, scores, memory_scores: contrastive_loss_direct(
    features, data["is_pixel"], scores, data["rows"], is_row, memory_scores
  )
  grad = jax.value_and_grad(loss, argnums=(0, 1, 2))
  return grad(data["features"], data["scores"], data["memory_scores"])


def _sums(data: dict, order: np.ndarray | None = None) -> tuple:
  bank = Bank(data["rows"], data["count"], data["head"])
  return _by_sums(*_flat(data, order), bank, data["memory_scores"])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_sums_equal_the_distances_of_all_pairs(seed):
  data = _data(seed)
  value, grads = _sums(data, np.arange(_K * _P))
  expected, (features, scores, memory_scores) = _by_pairs(data)
  np.testing.assert_allclose(value, expected, rtol=2e-6)
  expected = features.reshape(-1, _D), scores.reshape(-1), memory_scores
  stacked.assert_close(grads[:3], expected, 1e-5)
  assert not grads[3].rows.any()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_pixels_and_slots_is_immaterial(seed):
  data, rng = _data(seed), np.random.default_rng(seed)
  value, _ = _sums(data)
  np.testing.assert_allclose(_sums(data, rng.permutation(_K * _P))[0], value, rtol=1e-6)
  turned = data | {
    "rows": np.roll(data["rows"], 5, axis=1),
    "memory_scores": np.roll(data["memory_scores"], 5, axis=1),
    "head": (data["head"] + 5) % _S,
  }
  np.testing.assert_allclose(_sums(turned)[0], value, rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_scores_weigh_by_their_ratio_and_lengths_do_not(seed, factor):
  data = _data(seed)
  names = ("features", "scores", "rows", "memory_scores")
  scaled = data | {name: data[name] * np.float32(factor) for name in names}
  np.testing.assert_allclose(_sums(scaled)[0], _sums(data)[0], rtol=1e-5)


def test_the_loss_is_linear_in_a_pixels_share_of_the_weight():
  data = _data(3)
  data["is_pixel"][1:] = False
  values = []
  for share in (0.0, 0.25, 1.0):  # of the class's first pixel; the others have the rest
    scores = np.full((_K, _P), (1 - share) / (_P - 1), np.float32)
    scores[0, 0] = share
    values.append(_sums(data | {"scores": scores})[0])
  np.testing.assert_allclose(values[1], 0.75 * values[0] + 0.25 * values[2], rtol=1e-5)


def test_without_memory_scores_rows_count_alike():
  data = _data()
  bank = Bank(data["rows"], data["count"], data["head"])
  even = data | {"memory_scores": np.full((_K, _S), 0.3, np.float32)}
  value = jax.jit(contrastive_loss)(*_flat(data), bank)
  np.testing.assert_allclose(value, _sums(even)[0], rtol=1e-6)


def test_a_feature_of_zero_keeps_the_gradient_finite():
  data = _data()
  data["features"][0, :3] = 0
  value, grads = _sums(data)
  assert all(jnp.isfinite(x).all() for x in (value, *grads[:3]))


def test_weights_of_the_memory_are_checked():
  both, data = stacked.Both(_K, _D), _data()
  bank = Bank(data["rows"], data["count"], data["head"])
  with pytest.raises(ValueError, match="memory_weights='paper'"):
    selected_contrast(
      both.selectors,
      both.memory_selectors,
      *_flat(data)[:2],
      bank,
      memory_weights="paper",
    )


def _law_loss(weight, batch, ring, statistics, axis_name):
  """Contrast of features that depend on a weight, with rescaled memory weights."""
  network, _, _ = parts.split(stacked.Both(_K, _D, axis_name))
  bank = Bank(batch["slots"].swapaxes(0, 1), *ring)

  def run(both):
    return selected_contrast(
      both.selectors,
      both.memory_selectors,
      batch["inputs"] @ weight["features"],
      batch["classes"],
      bank,
      memory_weights="rescaled",
      axis_name=axis_name,
    )

  loss, after = network.apply(weight["selectors"], statistics, run)
  return loss + 0.01 * sum(x.sum() for x in jax.tree.leaves(after))


@functools.cache
def _law_case():
  data = _data(1)
  data["count"][:2] = 7, _S
  features, classes, _ = _flat(data)
  _, params, statistics = parts.split(stacked.Both(_K, _D))
  rng = np.random.default_rng(0)
  weight = {
    "features": rng.normal(size=(_D, _D)).astype(np.float32),
    "selectors": jax.tree.map(lambda x: (x + rng.random(x.shape)).astype(np.float32), params),
  }
  ring = data["count"], data["head"]
  batch = {"inputs": features, "classes": classes, "slots": data["rows"].swapaxes(0, 1)}
  loss = lambda w, b: _law_loss(w, b, ring, statistics, None)
  return weight, batch, ring, statistics, jax.jit(jax.value_and_grad(loss))(weight, batch)


@pytest.mark.parametrize("devices", DEVICES)
def test_devices_share_one_loss(devices):
  weight, batch, ring, statistics, expected = _law_case()
  loss = lambda w, b: _law_loss(w, b, ring, statistics, "data")
  value, grad = value_and_grad(loss, devices, weight, batch)
  np.testing.assert_allclose(value, expected[0], rtol=1e-5)
  assert all(x.any() for x in jax.tree.leaves(expected[1]))
  for part in ("features", "selectors"):
    stacked.assert_close(grad[part], expected[1][part], 1e-5)


def test_the_benchmark_runs(monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["memory_bank", "--small"])
  memory_bank.main()
  lines = capsys.readouterr().out.splitlines()
  assert sum("forward + backward" in line for line in lines) == 3
  assert sum("times the time" in line for line in lines) == 2
