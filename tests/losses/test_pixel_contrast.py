import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.backend import planned_for
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.pixel_contrast import (
  draw_priorities,
  group_contrast,
  pixel_contrast_loss,
  sample_pixels,
)
from semiseg_jax.models.resize import resize_nearest
from tests import golden
from tests.benchmarks import pixel_contrast as pixel_contrast_benchmark
from tests.devices import DEVICES
from tests.losses.law import value_and_grad
from tests.losses.plain_contrast import find_groups, plain_contrast
from tests.losses.replay import recorded_priorities

_GOLDEN = {"rtol": 1e-5, "atol": 1e-6}
_IMAGES, _CLASSES, _PIXELS, _TEMPERATURE = 8, 5, 4, 0.3

# Sums in another order, of gradients of the size of 0.1.
_assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def _names(case: golden.Vector, ending: str) -> list[str]:
  return [name.removesuffix(ending) for name in case if name.endswith(ending)]


def _count_classes(labels: np.ndarray) -> int:
  return int(labels[labels != IGNORE].max()) + 1


def _core_arguments(case: golden.Vector, name: str) -> tuple:
  """Anchors [A,V,D] and their labels, the other vectors or None and theirs, temperature."""
  anchors, others, labels = case["feats"], case["feats_t"], case["labels"]
  others_labels, temperature = labels, case["temperatures"][-1]
  form, _, what = name.partition("_")
  if what.startswith("t"):
    temperature = case["temperatures"][int(what[1:])]
  elif what == "one_class":
    others_labels = labels = np.full_like(labels, labels[0])
  elif what == "one_group":
    anchors, others, labels, others_labels = anchors[:1], others[:1], labels[:1], labels[:1]
  elif what == "same_feats":
    others = anchors
  elif what in ("other", "no_positive"):
    if what == "other":
      keep = case["pair_other_keep"] == 1
      anchors, labels = anchors[keep], labels[keep]
    others, others_labels = case["feats_t_other"], case["labels_t_other"]
  else:
    raise AssertionError(name)
  return anchors, labels, None if form == "single" else others, others_labels, float(temperature)


def _core_loss(anchors, labels, others, others_labels, temperature, num_classes):
  spread = lambda x: jnp.repeat(x[:, None], num_classes, axis=1)  # of which one class is there
  same_pixels = others is None or len(others) == len(anchors)
  return group_contrast(
    spread(anchors),
    labels[:, None] == np.arange(num_classes),
    spread(anchors if others is None else others),
    others_labels[:, None] == np.arange(num_classes),
    temperature,
    own_image=0 if same_pixels else -len(anchors),
    both_sides=others is None,
  )


@golden.cases("c3_semiseg/contrast_core*")
def test_contrast_of_groups_equals_the_original(case):
  num_classes = int(max(case["labels"].max(), case["labels_t_other"].max())) + 1
  for name in _names(case, "__value"):
    anchors, *arguments = _core_arguments(case, name)
    loss = lambda x: _core_loss(x, *arguments, num_classes)  # noqa: B023
    value, grad = jax.jit(jax.value_and_grad(loss))(anchors)
    np.testing.assert_allclose(value, case[f"{name}__value"], **_GOLDEN, err_msg=name)
    if f"{name}__grad" in case:
      np.testing.assert_allclose(grad, case[f"{name}__grad"], **_GOLDEN, err_msg=name)


@golden.cases("c3_semiseg/contrast_sampling*")
def test_sampled_pixels_equal_the_original(case):
  num_pixels, num_classes = int(case["neg_num"]), _count_classes(case["y_hat"])
  for name in _names(case, "__pixel_index"):
    labels = (
      np.where(case["mask"] == 0, IGNORE, case["y_hat"]) if "masked" in name else case["y_hat"]
    )
    predictions = None if name.startswith("random") else case["y"]
    priorities = recorded_priorities(case, name, labels, predictions, num_pixels)
    pixel, is_group = jax.jit(sample_pixels, static_argnums=(3, 4))(
      labels, predictions, priorities, num_classes, num_pixels
    )
    image, classes = np.nonzero(is_group)
    np.testing.assert_array_equal(classes, case[f"{name}__y"])
    pixel = np.asarray(pixel)[image, classes]
    np.testing.assert_array_equal(np.sort(pixel), np.sort(case[f"{name}__pixel_index"]))
    for maps in ("X", "X_t"):
      if f"{name}__{maps}" in case:
        np.testing.assert_array_equal(case[maps][image[:, None], pixel], case[f"{name}__{maps}"])


def _forward_arguments(case: golden.Vector, name: str) -> tuple[np.ndarray, ...]:
  """Labels at the embedding's size, predictions or None, contrast or None."""
  size = case["predict"].shape[1:]
  labels = case.get(f"labels_{name}", case["labels"])
  labels = np.asarray(resize_nearest(labels, size))
  mask = case.get("cb_mask_" + name.removeprefix("teacher_mask_"))
  if mask is not None:
    mask = np.concatenate([np.ones_like(mask)] * (len(mask) < len(labels)) + [mask])
    labels = np.where(resize_nearest(mask[:, 0], size) == 0, IGNORE, labels)
  predictions = None if "random" in name else case["predict"]
  return labels, predictions, golden.nhwc(case["feats_t"]) if name.startswith("teacher") else None


@golden.cases("c3_semiseg/contrast_forward*")
def test_the_loss_equals_the_original(case):
  num_pixels = int(case["neg_num"])
  flat = lambda x: x if x is None else x.reshape(len(x), -1)
  for name in _names(case, "__grad"):
    labels, predictions, contrast = _forward_arguments(case, name)
    loss = functools.partial(
      pixel_contrast_loss,
      labels=labels,
      predictions=predictions,
      contrast=contrast,
      num_classes=_count_classes(labels),
      num_pixels=num_pixels,
      temperature=float(case["temperature"]),
      priorities=recorded_priorities(case, name, flat(labels), flat(predictions), num_pixels),
    )
    value, grad = jax.jit(jax.value_and_grad(loss))(golden.nhwc(case["feats"]))
    np.testing.assert_allclose(value, case[f"{name}__value"], **_GOLDEN, err_msg=name)
    np.testing.assert_allclose(grad, golden.nhwc(case[f"{name}__grad"]), **_GOLDEN, err_msg=name)
    if len(case[f"{name}__perm_lengths"]) == 0:
      assert value == 0 and not grad.any()


@golden.cases("c3_semiseg/contrast_forward*")
def test_labels_and_masks_are_resized_as_the_original_does(case):
  size = case["predict"].shape[1:]
  np.testing.assert_array_equal(resize_nearest(case["labels"], size), case["labels_downsampled"])
  mask = resize_nearest(case["cb_mask_all"][:, 0], size)
  np.testing.assert_array_equal(mask, case["cb_mask_all_downsampled"][:, 0])


def _batch(seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """A weight and eight images, one of a single class and one without labels."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, _CLASSES, (_IMAGES, 5, 6)).astype(np.int32)
  labels[rng.random(labels.shape) < 0.2] = IGNORE
  labels[5], labels[6] = 3, IGNORE
  predictions = np.where(rng.random(labels.shape) < 0.5, labels, rng.integers(0, 5, labels.shape))
  batch = {
    "features": rng.normal(size=(*labels.shape, 4)).astype(np.float32),
    "teacher": rng.normal(size=(*labels.shape, 7)).astype(np.float32),
    "labels": labels,
    "predictions": predictions.astype(np.int32),
    "rank": np.arange(_IMAGES),
  }
  return rng.normal(size=(4, 7)).astype(np.float32), batch


def _loss(weight, batch, *, pair=False, axis_name=None, scope="global"):
  return pixel_contrast_loss(
    batch["features"] @ weight,
    batch["labels"],
    batch["predictions"],
    batch["teacher"] if pair else None,
    num_classes=_CLASSES,
    num_pixels=_PIXELS,
    temperature=_TEMPERATURE,
    key=jax.random.key(0),
    image_rank=batch["rank"],
    axis_name=axis_name,
    scope=scope,
  )


_value_and_grad = jax.jit(jax.value_and_grad(_loss), static_argnames="pair")


@functools.cache
def _on_one_device(pair: bool) -> tuple[jax.Array, jax.Array]:
  value, grad = _value_and_grad(*_batch(), pair=pair)
  assert value > 1 and jnp.abs(grad).max() > 1e-2
  return value, grad


@pytest.mark.parametrize("pair", [False, True])
def test_the_loss_is_that_of_all_pairs(pair):
  weight, batch = _batch()
  flat = lambda x: x.reshape(_IMAGES, -1, *x.shape[3:])
  priorities = draw_priorities(jax.random.key(0), batch["rank"], 30)
  groups = find_groups(flat(batch["labels"]), flat(batch["predictions"]), priorities, _PIXELS)
  contrast = flat(batch["teacher"]) if pair else None
  plain = lambda weight: plain_contrast(
    flat(batch["features"]) @ weight, contrast, groups, _TEMPERATURE
  )
  jax.tree.map(_assert_close, _on_one_device(pair), jax.jit(jax.value_and_grad(plain))(weight))


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("devices", DEVICES)
def test_devices_compute_what_one_would(devices, pair):
  loss = functools.partial(_loss, axis_name="data", pair=pair)
  actual = value_and_grad(loss, devices, *_batch())
  jax.tree.map(_assert_close, actual, _on_one_device(pair))


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("devices", [1, 4])
def test_all_classes_at_once_equal_one_after_the_other(devices, pair):
  loss = functools.partial(_loss, axis_name="data", pair=pair)
  with planned_for("gpu"):
    actual = value_and_grad(loss, devices, *_batch())
  jax.tree.map(_assert_close, actual, _on_one_device(pair))


def test_two_streams_on_four_devices():
  """The first image of every device comes before the second of any."""
  weight, batch = _batch()
  rows = np.arange(_IMAGES).reshape(2, 4).T.reshape(-1)
  loss = functools.partial(_loss, axis_name="data", pair=True)
  actual = value_and_grad(loss, 4, weight, jax.tree.map(lambda x: x[rows], batch))
  jax.tree.map(_assert_close, actual, _on_one_device(True))


@pytest.mark.slow  # whole steps run under pmap in tests/training/test_step.py
def test_pmap_computes_what_one_device_would():
  weight, batch = _batch()

  def per_device(weight, batch):
    value, grad = jax.value_and_grad(_loss)(weight, batch, axis_name="data")
    return jax.lax.pmean((value, grad), "data")

  split = jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), batch)
  mapped = jax.pmap(per_device, axis_name="data", in_axes=(None, 0), devices=jax.devices()[:4])
  actual = jax.tree.map(lambda x: x[0], mapped(weight, split))
  jax.tree.map(_assert_close, actual, _on_one_device(False))


def test_own_pixels_give_the_mean_of_what_each_device_computes():
  weight, batch = _batch()
  loss = functools.partial(_loss, axis_name="data", scope="device")
  actual = value_and_grad(loss, 4, weight, batch)
  part = lambda i: jax.tree.map(lambda x: x[2 * i : 2 * i + 2], batch)
  parts = [_value_and_grad(weight, part(i)) for i in range(4)]
  jax.tree.map(_assert_close, actual, jax.tree.map(lambda *x: sum(x) / 4, *parts))


def test_a_device_of_images_without_labels_is_no_part_of_the_mean_of_all():
  weight, batch = _batch()
  batch["labels"][2:] = IGNORE
  loss = functools.partial(_loss, axis_name="data")
  actual = value_and_grad(loss, 4, weight, batch)
  alone = _value_and_grad(weight, jax.tree.map(lambda x: x[:2], batch))
  jax.tree.map(_assert_close, actual, alone)


def test_class_0_has_groups_only_if_asked():
  labels = np.repeat([0, 1], [10, 8])[None].astype(np.int32)
  priorities = draw_priorities(jax.random.key(0), jnp.arange(1), 18)
  for every_class in (False, True):
    pixel, is_group = sample_pixels(labels, None, priorities, 2, 7, every_class)
    np.testing.assert_array_equal(is_group, [[every_class, True]])
    assert (pixel[0, 1] >= 10).all() and (pixel[0, 0] < 10).all()


@pytest.mark.parametrize("num_pixels", [6, 7])
@pytest.mark.parametrize("hard", [0, 1, 3, 4, 9, 14, 17, 18, 20])
def test_hard_and_easy_pixels_share_the_places(num_pixels, hard):
  labels = np.ones((1, 21), np.int32)
  labels[0, 20] = IGNORE
  predictions = np.where(np.arange(21) < hard, 2, 1)[None]
  priorities = draw_priorities(jax.random.key(hard), jnp.arange(1), 21)
  pixel, is_group = jax.jit(sample_pixels, static_argnums=(3, 4))(
    labels, predictions, priorities, 3, num_pixels
  )
  np.testing.assert_array_equal(is_group, [[False, True, False]])
  _, _, wanted = find_groups(labels, predictions, priorities, num_pixels)
  np.testing.assert_array_equal(pixel[0, 1], wanted[0])


def test_every_pixel_is_drawn_equally_often():
  labels = np.ones((3, 12), np.int32)
  draw = lambda key: sample_pixels(
    labels, None, draw_priorities(key, jnp.arange(3), 12), 2, 5
  ).pixel[:, 1]
  pixel = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 2000))
  assert (np.diff(np.sort(pixel), axis=-1) > 0).all()
  for image in range(3):
    share = np.bincount(pixel[:, image].reshape(-1), minlength=12) / 2000
    np.testing.assert_allclose(share, 5 / 12, atol=5 * 0.5 / 2000**0.5)
  assert (pixel[:, 0] != pixel[:, 1]).any(axis=-1).mean() > 0.9


def test_embeddings_of_zero_keep_the_gradient_finite():
  weight, batch = _batch()
  loss, grad = _value_and_grad(weight, batch | {"features": 0 * batch["features"]})
  assert np.isfinite(loss) and np.isfinite(grad).all()


def test_half_precision_is_computed_in_full():
  _, batch = _batch()
  half = {name: jnp.asarray(batch[name], jnp.bfloat16) for name in ("features", "teacher")}
  loss = jax.jit(_loss)
  ours = loss(jnp.eye(4, dtype=jnp.bfloat16), batch | half)
  full = jax.tree.map(lambda x: x.astype(jnp.float32), half)
  assert ours.dtype == jnp.float32
  np.testing.assert_allclose(ours, loss(np.eye(4, dtype=np.float32), batch | full), rtol=1e-6)


def test_one_program_for_every_batch():
  before = _value_and_grad._cache_size()
  for seed in range(3):
    _value_and_grad(*_batch(seed), pair=False)
  assert _value_and_grad._cache_size() <= before + 1


@pytest.mark.parametrize("wrong", [{"scope": "local"}, {"key": None}, {"num_pixels": 1}])
def test_wrong_arguments_are_refused(wrong):
  _, batch = _batch()
  arguments = {"key": jax.random.key(0), "num_classes": 5, "num_pixels": 4, "temperature": 1}
  with pytest.raises(ValueError, match=r"scope|key|num_pixels"):
    pixel_contrast_loss(
      batch["features"], batch["labels"], batch["predictions"], **arguments | wrong
    )


def test_the_benchmark_runs(monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["pixel_contrast", "--small"])
  pixel_contrast_benchmark.main()
  out = capsys.readouterr().out
  assert "forward + backward" in out and "sampling" in out
