import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from semiseg_jax.losses import class_thresholds
from semiseg_jax.losses.class_thresholds import is_confident, update_thresholds
from tests import golden
from tests.devices import DEVICES

_SEQUENCE = 1e-6  # thresholds are float32 here and float64 in the original
_CLASSES = 5


@golden.cases("c3_semiseg/cb_threshold*")
def test_thresholds_and_masks_equal_the_original(case):
  probs = np.moveaxis(case["probs"], 2, -1)
  for name in (name.removesuffix("__params") for name in case if name.endswith("__params")):
    end_percent, gamma, initial, ema = case[f"{name}__params"].tolist()
    update = functools.partial(update_thresholds, end_percent=end_percent, gamma=gamma, ema=ema)
    update = jax.jit(update)
    thresholds = jnp.full(probs.shape[-1], initial, jnp.float32)
    expected = zip(case[f"{name}__thresholds"], case[f"{name}__masks"][:, :, 0], strict=True)
    for batch, (wanted, mask) in zip(probs, expected, strict=True):
      labels, confidence = batch.argmax(-1).astype(np.int32), batch.max(-1)
      thresholds = update(thresholds, labels, confidence)
      np.testing.assert_allclose(thresholds, wanted, rtol=0, atol=_SEQUENCE, err_msg=name)
      np.testing.assert_array_equal(is_confident(labels, confidence, thresholds), mask == 1)


def _batch() -> tuple[np.ndarray, np.ndarray]:
  """Eight images with repeated confidences; class 0 in one pixel alone, the last class nowhere."""
  rng = np.random.default_rng(0)
  labels = rng.integers(1, _CLASSES - 1, (8, 6, 7)).astype(np.int32)
  labels[3, 2, 2] = 0
  confidence = rng.choice(np.float32([0, 1e-30, 0.2, 0.5, 0.9999999, 1]), labels.shape)
  return labels, np.where(labels == 1, rng.random(labels.shape, np.float32), confidence)


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("end_percent", [0.0, 0.35, 0.8, 0.999])
def test_devices_find_the_quantile_that_sorting_would(devices, end_percent):
  labels, confidence = _batch()
  thresholds = np.linspace(0.5, 0.9, _CLASSES).astype(np.float32)
  mesh = jax.make_mesh(
    (devices,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
  )
  update = functools.partial(update_thresholds, end_percent=end_percent, ema=0.25, axis_name="data")
  mapped = jax.shard_map(update, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P())
  ours = jax.jit(mapped)(thresholds, labels, confidence)
  for c in range(_CLASSES - 1):
    found = np.sort(confidence[labels == c])[::-1]
    wanted = 0.25 * thresholds[c] + 0.75 * found[int(len(found) * end_percent + 1e-9)]
    np.testing.assert_allclose(ours[c], wanted, rtol=1e-6)
  assert ours[-1] == thresholds[-1]


def test_a_quantile_is_in_the_bits_of_a_confidence():
  """A threshold of 0 becomes the confidence itself."""
  labels, confidence = _batch()
  ours = update_thresholds(jnp.zeros(_CLASSES), labels, confidence, end_percent=0.5)
  for c in range(_CLASSES - 1):
    found = np.sort(confidence[labels == c])[::-1]
    assert ours[c] == found[len(found) // 2]


def test_the_rank_is_exact_among_millions_of_pixels():
  """float32 would round these products."""
  count = np.append(np.arange(200), 2**24 + np.arange(200))
  for percent in (0, 29, 40, 57, 80, 99, 100):
    ours = class_thresholds._share(jnp.asarray(count, jnp.int32), percent / 100)
    np.testing.assert_array_equal(ours, count * percent // 100)
