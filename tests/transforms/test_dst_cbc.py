"""Three versions of DST-CBC's geometry against the originals' images, draws given."""

import numpy as np
import pytest

from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms import dst_cbc, evaluation
from tests import golden

LEVELS = 1e-3  # of 255, between two float32 bilinear resizings
UNIT_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
UNIT_STD = np.array([0.229, 0.224, 0.225], np.float32)
UNIT_REACH = 2.65  # the largest value in units of UNIT_STD
BGR_MEAN = np.array([104.008, 116.669, 122.675], np.float32)


def assert_levels(image, normalised):
  """image: our RGB levels; normalised: the original's [3,H,W], whose range tells its kind."""
  channels = np.moveaxis(normalised, 0, -1)
  rgb = (channels * UNIT_STD + UNIT_MEAN) * 255
  is_coco = abs(channels).max() > UNIT_REACH
  expected = (channels + BGR_MEAN)[..., ::-1] if is_coco else rgb
  assert image.dtype in (np.float32, np.uint8)
  np.testing.assert_allclose(image, expected, rtol=0, atol=LEVELS)


def record_of(case, name):
  """Label ids are made train ids first: both orders give the same."""
  label = case[f"{name}_label"]
  if "label_map" in case and not case[f"{name}_pseudo"]:
    label = case["label_map"].astype(np.uint8)[label]
  return {"image": case[f"{name}_image"], "label": label, "position": np.int32(7)}


def draws_of(case, name, size):
  return dst_cbc.Draws(size, *case[f"{name}_ij"].tolist(), bool(case[f"{name}_flip_draw"] < 0.5))


@golden.cases("dst_cbc/transform_*", holding="cases")
def test_training_equals_the_original(case):
  crop = tuple((case["crop"] if "crop" in case else case["lo"]).tolist())
  assert case["cases"] > 0
  for name in (f"case{i}" for i in range(case["cases"])):
    record = record_of(case, name)
    if record["label"].ndim == 3:  # label and confidence of DMT
      record["label"], record["confidence"] = np.moveaxis(record["label"], -1, 0)
    if "resize" in case:
      record = dst_cbc.resize(record, tuple(case["resize"].tolist()))
    if f"{name}_hw" in case:
      size = tuple(case[f"{name}_hw"].tolist())
    else:
      size = dst_cbc.geometry.scaled_size(record["image"].shape, float(case[f"{name}_scale"]))
    out = dst_cbc.resize_crop(record, draws_of(case, name, size), crop)
    assert_levels(out["image"], case[f"{name}_out_image"])
    maps = case[f"{name}_out_label"]
    if "confidence" in out:
      np.testing.assert_array_equal(out["confidence"], maps[1])
      maps = maps[0]
    np.testing.assert_array_equal(out["label"], maps)
    assert out["position"] == 7


@golden.cases("dst_cbc/transform_*", holding="noaug_image")
def test_without_augmentation(case):
  record = {"image": case["noaug_image"], "label": case["noaug_label"]}
  crop = case["noaug_out_label"].shape
  out = dst_cbc.DstCbcSquash(crop).random_map(record, np.random.default_rng(0))
  assert_levels(out["image"], case["noaug_out_image"])
  np.testing.assert_array_equal(out["label"], case["noaug_out_label"])


@golden.cases("dst_cbc/transform_*", holding="pad")
def test_evaluation_equals_the_original(case):
  names = [key.removesuffix("_out_image") for key in case if key.endswith("_out_image")]
  assert names
  for name in names:
    record = {"image": case[f"{name}_image"], "label": case[f"{name}_label"]}
    if name.startswith("city"):
      transform = dst_cbc.DstCbcEval(tuple(case["resize"].tolist()))
      record["label"] = city_train_ids()[record["label"]]
    else:
      transform = evaluation.Pad(tuple(case["pad"].tolist()))
    out = transform(record)
    assert_levels(out["image"], case[f"{name}_out_image"])
    np.testing.assert_array_equal(out["label"], case[f"{name}_out_label"])
    assert out["image"].shape[:2] == transform.output_size(record["image"].shape[:2])


def city_train_ids():
  """Of any recorded set: all have the same ids."""
  found = golden.vectors("dst_cbc/transform_*", holding="label_map").values()
  return next(iter(found))["label_map"].astype(np.uint8)


def test_draws_lie_where_the_originals_do(monkeypatch):
  seen = []
  original = dst_cbc.resize_crop
  monkeypatch.setattr(
    dst_cbc, "resize_crop", lambda r, draws, crop: seen.append(draws) or original(r, draws, crop)
  )
  record = {"image": np.zeros((20, 30, 3), np.uint8), "label": np.zeros((20, 30), np.uint8)}
  rng = np.random.default_rng(0)
  for _ in range(200):
    dst_cbc.DstCbc(crop=(14, 15)).random_map(record, rng)
  assert {d.size[0] for d in seen} == set(range(10, 30))
  assert all(int(1.5 * d.size[0]) in (d.size[1], d.size[1] - 1) for d in seen)
  assert all(0 <= d.row <= max(d.size[0] - 14, 0) for d in seen)
  assert all(0 <= d.column <= max(d.size[1] - 15, 0) for d in seen)
  assert {d.flip for d in seen} == {True, False}
  seen.clear()
  for _ in range(200):
    dst_cbc.DstCbcPublished((16, 18), flip=False, crop=(14, 15)).random_map(record, rng)
  assert {d.size for d in seen} == {(h, w) for h in (14, 15, 16) for w in (15, 16, 17, 18)}
  assert not any(d.flip for d in seen)


def test_small_images_get_black_ignored_margins():
  record = {"image": np.full((5, 6, 3), 9, np.uint8), "label": np.ones((5, 6), np.uint8)}
  transform = dst_cbc.DstCbc((1.0, 1.0), flip=False, crop=(8, 8))
  out = transform.random_map(record, np.random.default_rng(0))
  assert (out["image"][:5, :6] == 9).all() and out["image"].sum() == 9 * 90
  assert (out["label"] == IGNORE).sum() == 64 - 30


def test_published_sizes_hold_the_crop():
  with pytest.raises(ValueError, match=r"smaller than config\.data\.crop"):
    dst_cbc.DstCbcPublished((10, 30), crop=(12, 12))
