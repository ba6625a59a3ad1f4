import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.backend import planned_for
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses import contrast
from semiseg_jax.losses.contrast import class_relation, reco_loss
from semiseg_jax.losses.pools import draw_pixels
from tests import golden
from tests.benchmarks import reco_loss as reco_loss_benchmark
from tests.devices import DEVICES
from tests.losses.law import value_and_grad
from tests.losses.replay import labels_of, recorded_draws

_VALUE = {"rtol": 1e-5, "atol": 1e-7}
_GRAD = {"rtol": 1e-3, "atol": 1e-7}
_SHARE = {"rtol": 2e-5}  # of a softmax of similarities
_IMAGES, _CLASSES = 8, 6

# Sums in another order. Gradients here are of the size of 0.1.
_assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


_PLATFORMS = pytest.mark.parametrize("platform", ["cpu", "gpu"])  # whose form of the sums is taken


@_PLATFORMS
@golden.cases("reco/reco_*")
def test_reco_loss_equals_the_original(case, platform):
  probs = golden.nhwc(case["prob"])
  loss = functools.partial(
    reco_loss,
    labels=labels_of(case["label"], case["mask"]),
    probs=probs,
    draws=recorded_draws(case, probs.shape[-1]),
    strong_threshold=float(case["strong_threshold"]),
    temperature=float(case["temp"]),
  )
  with planned_for(platform):
    value, grad = jax.jit(jax.value_and_grad(loss))(golden.nhwc(case["rep"]))
  np.testing.assert_allclose(value, case["loss"], **_VALUE)
  np.testing.assert_allclose(grad, golden.nhwc(case["grad_rep"]), **_GRAD)


@golden.cases("reco/reco_*")
def test_class_relation_equals_the_original(case):
  num_classes = case["class_dist_full"].shape[0]
  prototypes = np.zeros((num_classes, case["rep"].shape[1]), np.float32)
  prototypes[case["valid_classes"]] = case["prototypes"].reshape(-1, prototypes.shape[1])
  present = np.isin(np.arange(num_classes), case["valid_classes"])
  actual = class_relation(jnp.asarray(prototypes), jnp.asarray(present), case["temp"])
  expected = case["class_dist_full"]
  defined = expected >= 0
  assert defined.any() or len(case["valid_classes"]) < 2 or not case["has_gradient"]
  np.testing.assert_allclose(actual[defined], expected[defined], **_SHARE)


def _batch(seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """A weight and eight images; class 0 is in two of them, class 4 always sure, class 5 nowhere."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(1, 5, (_IMAGES, 5, 6)).astype(np.int32)
  labels[2:4, :2] = 0
  labels[rng.random(labels.shape) < 0.2] = IGNORE
  labels[6] = IGNORE
  probs = rng.dirichlet(np.full(_CLASSES, 0.5), labels.shape).astype(np.float32)
  probs[labels == 4] = np.eye(_CLASSES)[4]
  batch = {
    "features": rng.normal(size=(*labels.shape, 4)).astype(np.float32),
    "labels": labels,
    "probs": probs,
    "rank": np.arange(_IMAGES),
  }
  return rng.normal(size=(4, 7)).astype(np.float32), batch


def _loss(weight, batch, *, seed=0, axis_name=None, scope="global", num_queries=10):
  return reco_loss(
    batch["features"] @ weight,
    batch["labels"],
    batch["probs"],
    image_rank=batch["rank"],
    key=jax.random.key(seed),
    strong_threshold=0.9,
    temperature=0.3,
    num_queries=num_queries,
    num_negatives=12,
    axis_name=axis_name,
    scope=scope,
  )


_value_and_grad = jax.jit(jax.value_and_grad(_loss))


@functools.cache
def _on_one_device() -> tuple[jax.Array, jax.Array]:
  value, grad = _value_and_grad(*_batch())
  assert value > 0.5 and jnp.abs(grad).max() > 1e-2
  return value, grad


_SMALL_STEP = 7 * 12 * 7 * 4  # bytes of the keys of 7 queries: 60 are 8 steps and one of 4


@pytest.mark.parametrize("bytes_at_once", [_SMALL_STEP, 1, 2**30])
def test_large_steps_equal_class_by_class(bytes_at_once, monkeypatch):
  monkeypatch.setattr(contrast, "_BYTES_AT_ONCE", bytes_at_once)
  with planned_for("gpu"):
    actual = jax.jit(jax.value_and_grad(_loss))(*_batch())
  jax.tree.map(_assert_close, actual, _on_one_device())


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_large_steps_on_devices_compute_what_one_would(devices, monkeypatch):
  monkeypatch.setattr(contrast, "_BYTES_AT_ONCE", _SMALL_STEP)
  with planned_for("gpu"):
    actual = value_and_grad(functools.partial(_loss, axis_name="data"), devices, *_batch())
  jax.tree.map(_assert_close, actual, _on_one_device())


def test_large_steps_see_a_device_s_own_pixels_as_class_by_class_does():
  """With four devices, class 0 is on one of them alone."""
  loss = functools.partial(_loss, axis_name="data", scope="device")
  expected = value_and_grad(loss, 4, *_batch())
  with planned_for("gpu"):
    actual = value_and_grad(loss, 4, *_batch())
  assert np.abs(expected[1]).max() > 1e-2
  jax.tree.map(_assert_close, actual, expected)


@_PLATFORMS
def test_nothing_is_sorted_and_a_gpu_has_no_loop(platform):
  """Loops are of many small kernels there, and XLA folds the sort of a constant for seconds."""
  with planned_for(platform):
    program = str(jax.make_jaxpr(jax.value_and_grad(_loss))(*_batch()))
  assert "sort[" not in program
  assert ("scan[" in program or "while[" in program) == (platform == "cpu")


@pytest.mark.parametrize("devices", DEVICES)
def test_devices_compute_what_one_would(devices):
  loss = functools.partial(_loss, axis_name="data")
  actual = value_and_grad(loss, devices, *_batch())
  jax.tree.map(_assert_close, actual, _on_one_device())


def test_two_streams_on_four_devices():
  """The first image of every device comes before the second of any."""
  weight, batch = _batch()
  rows = np.arange(_IMAGES).reshape(2, 4).T.reshape(-1)
  loss = functools.partial(_loss, axis_name="data")
  actual = value_and_grad(loss, 4, weight, jax.tree.map(lambda x: x[rows], batch))
  jax.tree.map(_assert_close, actual, _on_one_device())


@pytest.mark.slow  # whole steps run under pmap in tests/training/test_step.py
def test_pmap_computes_what_one_device_would():
  weight, batch = _batch()

  def per_device(weight, batch):
    value, grad = jax.value_and_grad(_loss)(weight, batch, axis_name="data")
    return jax.lax.pmean((value, grad), "data")

  split = jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), batch)
  mapped = jax.pmap(per_device, axis_name="data", in_axes=(None, 0), devices=jax.devices()[:4])
  actual = jax.tree.map(lambda x: x[0], mapped(weight, split))
  jax.tree.map(_assert_close, actual, _on_one_device())


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_own_pixels_on_many_devices(devices):
  """With eight devices, some hold one class or nothing at all."""
  weight, batch = _batch()
  batch["labels"][7] = np.where(batch["labels"][7] == IGNORE, IGNORE, 1)
  loss = functools.partial(_loss, axis_name="data", scope="device")
  value, grad = value_and_grad(loss, devices, weight, batch)
  assert 0.5 < value < 20
  assert np.isfinite(grad).all() and np.abs(grad).max() > 1e-2


def test_a_device_with_one_class_has_no_negatives():
  weight, batch = _batch()
  batch["labels"] = np.arange(_IMAGES, dtype=np.int32).repeat(30).reshape(-1, 5, 6) // 2 + 2
  loss = functools.partial(_loss, axis_name="data", scope="device")
  value, grad = value_and_grad(loss, 4, weight, batch)
  assert value == 0
  np.testing.assert_array_equal(grad, 0)


def test_own_pixels_expect_the_loss_of_the_whole_batch():
  """Where devices differ in their numbers of queries alone, the expectation is the same.

  Keys are equal all over a class, so that only the choice of queries is random; the hard pixels of
  class 0 are 4 on one device and 16 on the other.
  """
  rng = np.random.default_rng(0)
  labels = np.arange(3, dtype=np.int32).repeat(8)[None, :, None].repeat(2, 0).repeat(8, 2)
  weight = np.eye(5, dtype=np.float32)
  features = rng.normal(size=(3, 5)).astype(np.float32)[labels]
  features[labels == 0] = rng.normal(size=(int((labels == 0).sum()), 5))
  probs = np.ones((*labels.shape, 3), np.float32)
  zeros = np.argwhere(labels == 0)
  hard = np.concatenate([zeros[zeros[:, 0] == 0][:4], zeros[zeros[:, 0] == 1][:16]])
  probs[tuple(hard.T)] = 0.5
  batch = {"features": features, "labels": labels, "probs": probs, "rank": np.arange(2)}
  keys = np.arange(40)

  def mean_over_keys(scope):
    loss = lambda w, b: jax.vmap(
      lambda seed: _loss(w, b, seed=seed, axis_name="data", scope=scope, num_queries=32)
    )(keys).mean()
    return value_and_grad(loss, 2, weight, batch)[0]

  np.testing.assert_allclose(mean_over_keys("device"), mean_over_keys("global"), rtol=0.02)


def test_labels_decide_not_the_masked_pixels():
  weight, batch = _batch()
  grad = jax.jit(jax.grad(lambda x: _loss(weight, batch | {"features": x})))(batch["features"])
  hard = (
    np.take_along_axis(batch["probs"], np.minimum(batch["labels"], _CLASSES - 1)[..., None], -1)[
      ..., 0
    ]
    < 0.9
  )
  queried = hard & (batch["labels"] != IGNORE)
  assert np.abs(grad[queried]).max() > 1e-3
  np.testing.assert_array_equal(grad[~queried], 0)


@pytest.mark.parametrize("kept", [(), (1,)])
def test_fewer_than_two_classes_cost_nothing(kept):
  weight, batch = _batch()
  batch["labels"] = np.where(np.isin(batch["labels"], kept), batch["labels"], IGNORE)
  loss, grad = _value_and_grad(weight, batch)
  assert loss == 0
  np.testing.assert_array_equal(grad, 0)


def test_embeddings_of_zero_keep_the_gradient_finite():
  weight, batch = _batch()
  loss, grad = _value_and_grad(weight, batch | {"features": 0 * batch["features"]})
  assert np.isfinite(loss) and np.isfinite(grad).all()


def test_a_low_temperature_does_not_overflow():
  _, batch = _batch()
  loss = lambda x: reco_loss(
    x,
    batch["labels"],
    batch["probs"],
    key=jax.random.key(0),
    temperature=1e-3,
    num_queries=8,
    num_negatives=8,
  )
  value, grad = jax.jit(jax.value_and_grad(loss))(batch["features"])
  assert np.isfinite(value) and np.isfinite(grad).all() and value > 10


def _plain_reco(embedding, keys, labels, probs, draws, strong_threshold, temperature):
  """The loss class by class; embedding gives the queries, keys (equal to it) all the rest."""
  embedding, keys = (x.reshape(-1, x.shape[-1]) for x in (embedding, keys))
  labels, probs = labels.reshape(-1), probs.reshape(-1, probs.shape[-1])
  unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
  pixels_of = {c: np.flatnonzero(labels == c) for c in np.unique(labels[labels != IGNORE])}
  total = 0
  for c, pixels in pixels_of.items():
    hard = pixels[probs[pixels, c] < strong_threshold]
    if len(hard) == 0:
      continue
    pairs = zip(draws.negative_class[c].flat, draws.negative_index[c].flat, strict=True)
    negatives = np.array([pixels_of[j][index] for j, index in pairs])
    queries = unit(embedding[hard[draws.query_index[c]]])
    negatives = unit(keys[negatives]).reshape(*draws.negative_class[c].shape, -1)
    positive = queries @ unit(keys[pixels].mean(axis=0))
    similar = jnp.concatenate([positive[:, None], jnp.einsum("qd,qnd->qn", queries, negatives)], 1)
    total -= jax.nn.log_softmax(similar / temperature)[:, 0].mean()
  return total / len(pixels_of)


def test_more_queries_than_are_looked_at_at_once():
  weight, batch = _batch()
  labels, probs = batch["labels"], batch["probs"]
  embedding = batch["features"] @ weight
  is_class = labels[..., None] == np.arange(_CLASSES)
  hard = np.array([(is_class[..., c] & (probs[..., c] < 0.9)).sum() for c in range(_CLASSES)])
  valid = is_class.sum((0, 1, 2))
  relation = (valid > 0) * (1 - np.eye(_CLASSES)) / 4
  draws = draw_pixels(jax.random.key(0), hard, valid, jnp.asarray(relation), 2 * 32 + 7, 3)
  draws = jax.tree.map(np.asarray, draws)

  loss = functools.partial(reco_loss, strong_threshold=0.9, temperature=0.3)
  actual = jax.jit(jax.value_and_grad(loss))(embedding, labels, probs, draws=draws)
  plain = lambda x: _plain_reco(x, embedding, labels, probs, draws, 0.9, 0.3)
  expected = jax.jit(jax.value_and_grad(plain))(embedding)
  jax.tree.map(_assert_close, actual, expected)


def test_one_program_for_every_batch():
  before = _value_and_grad._cache_size()
  for seed in range(3):
    _value_and_grad(*_batch(seed))
  assert _value_and_grad._cache_size() <= before + 1


@pytest.mark.parametrize("wrong", [{"scope": "local"}, {"key": None}])
def test_wrong_arguments_are_refused(wrong):
  _, batch = _batch()
  arguments = {"key": jax.random.key(0)} | wrong
  with pytest.raises(ValueError, match=r"scope|key"):
    reco_loss(batch["features"], batch["labels"], batch["probs"], **arguments)


def test_the_benchmark_runs(monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["reco_loss", "--small"])
  reco_loss_benchmark.main()
  out = capsys.readouterr().out
  assert "forward + backward" in out and "peak resident memory" in out
