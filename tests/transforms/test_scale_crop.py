"""Scaling, padding and cropping against the original's images, draws given."""

import numpy as np
import pytest

from semiseg_jax.input import datasets
from semiseg_jax.input.sources import Dataset, DatasetInfo, Source
from semiseg_jax.transforms import geometry, scale_crop
from tests import golden

CASES = "reco/transform_*"


def replay(case, index):
  image = np.moveaxis(case["image"][index], 0, -1)
  label = case["label"][index].astype(np.uint8)
  crop = tuple(case["crop_size"]) if case["crop_size"].ndim else label.shape
  row, column = np.maximum(case["draw_crop"][index], 0)  # -1: it fits, nothing was drawn
  draws = scale_crop.Draws(float(case["draw_scale"][index]), row, column)
  assert geometry.scaled_size(label.shape, draws.scale) == tuple(case["resized"][index])
  out = scale_crop.scale_crop({"image": image, "label": label}, draws, crop)
  return out["image"], out["label"]


@golden.cases(CASES)
def test_equals_the_original(case):
  compared = 0
  for index in range(len(case["image"])):
    image, label = replay(case, index)
    if case["draw_flip_on"][index]:  # the flip is the device's; undone here to compare
      image, label = image[:, ::-1], label[:, ::-1]
    np.testing.assert_array_equal(label, golden.known(case["out_label"][index]))
    if case["draw_jitter_on"][index] or case["draw_blur_on"][index]:
      continue
    np.testing.assert_array_equal(image, golden.nhwc(case["out_image_level"][index]))
    compared += 1
  assert compared or case["augmentation"]  # which may have changed the colours of all


@golden.cases(CASES)
def test_draws_lie_where_the_originals_do(case):
  crop = tuple(case["crop_size"]) if case["crop_size"].ndim else case["label"].shape[1:]
  low, high = case["scale_range"]
  rng = np.random.default_rng(0)
  for _ in range(50):
    draws = scale_crop.draw_scale_crop(rng, case["label"].shape[1:], (low, high), crop)
    height, width = geometry.scaled_size(case["label"].shape[1:], draws.scale)
    assert low <= draws.scale <= high
    assert 0 <= draws.row <= max(height - crop[0], 0)
    assert 0 <= draws.column <= max(width - crop[1], 0)


def test_every_crop_place_is_drawn():
  rng = np.random.default_rng(0)
  draws = [scale_crop.draw_scale_crop(rng, (5, 4), (1, 1), (3, 4)) for _ in range(60)]
  assert {d.row for d in draws} == {0, 1, 2} and {d.column for d in draws} == {0}


def test_scale_one_is_a_slice():
  rng = np.random.default_rng(0)
  record = {"image": rng.integers(0, 256, (9, 8, 3), np.uint8), "position": 5}
  record["label"] = rng.integers(0, 4, (9, 8)).astype(np.uint8)
  out = scale_crop.ScaleCrop(crop=(4, 5)).random_map(record, np.random.default_rng(1))
  draws = scale_crop.draw_scale_crop(np.random.default_rng(1), (9, 8), (1.0, 1.0), (4, 5))
  window = np.s_[draws.row : draws.row + 4, draws.column : draws.column + 5]
  np.testing.assert_array_equal(out["image"], record["image"][window])
  np.testing.assert_array_equal(out["label"], record["label"][window])
  assert out["position"] == 5
  whole = scale_crop.ScaleCrop().random_map(record, np.random.default_rng(1))
  np.testing.assert_array_equal(whole["image"], record["image"])


@pytest.mark.parametrize(
  ("size", "want"), [((30, 60), (20, 40)), ((45, 20), (45, 20)), ((10, 5), (40, 20))]
)
def test_resized_brings_the_shorter_side_to_length(size, want):
  class One(Source):
    ids, labeled, sizes = ["a"], np.asarray([True]), [size]

    def __getitem__(self, index):
      return {"image": np.zeros((*size, 3), np.uint8), "label": np.zeros(size, np.uint8)}

  info = DatasetInfo("one", ("a",), np.zeros((1, 3), np.uint8), size)
  dataset = datasets.resized_dataset(Dataset(info, One(), One()), 20)
  assert dataset.info.size == want
  assert dataset.train[0]["image"].shape == (*want, 3) and dataset.val[0]["label"].shape == want
