"""The segmentation zoo's augmentation against the original's outputs, draws given."""

import numpy as np
import pytest

from semiseg_jax.transforms import zoo
from tests import golden

LEVELS = 2.0  # by which another OpenCV's rotation may differ, but for
SHARE = 0.01  # of the pixels
ITEM_LEVELS = 1.0  # a truncation on the other side of a whole number
SMOOTH = 1e-3  # levels, between two float32 resizings
ENTRIES = [
  pytest.param(case, entry, id=f"{name}-{entry['case']}")
  for name, case in golden.vectors("segmentation_zoo/augmentation*").items()
  for entry in golden.load_json(f"segmentation_zoo/{name}.json")
]


def replay(entry, record):
  """The transform that the options make, and the draws as they were recorded."""
  options = dict(entry["options"])
  crop = options.pop("crop_size", None)
  transform = zoo.Zoo(**{"rotate": False, **options}, crop=crop and (crop, crop))
  values = iter(draw["value"] for draw in entry["draws"])
  size = record["image"].shape[:2]
  if transform.base_size is not None:
    size = zoo.longer_side(size, next(values) if transform.scale else transform.base_size)
  angle = next(values) if transform.rotate else 0
  row, column = (next(values), next(values)) if crop else (0, 0)
  flip = transform.flip and next(values) > 0.5
  draws = zoo.Draws(size, angle, row, column, flip, next(values) if transform.blur else 0.0)
  assert next(values, None) is None
  return transform, draws


@pytest.mark.parametrize(("case", "entry"), ENTRIES)
def test_training_equals_the_original(case, entry):
  get = lambda key: case[f"{entry['case']}__{key}"]
  record = {"image": get("image"), "label": get("label")}
  transform, draws = replay(entry, record)
  out = zoo.augment(record, draws, transform.crop, transform.fill)
  difference = abs(out["image"] - get("out_image"))
  assert (difference > LEVELS).mean() <= SHARE
  np.testing.assert_array_equal(out["label"], get("out_label"))
  limits = [(draw["low"], draw["high"]) for draw in entry["draws"] if draw["kind"] == "randint"]
  drawn = [transform.draw(np.random.default_rng(seed), get("label").shape) for seed in range(200)]
  check_limits(transform, drawn, limits, record)


def check_limits(transform, drawn, limits, record):
  """Our draws lie where the recorded ones could."""
  limits = iter(limits)
  size = record["image"].shape[:2]
  if transform.base_size is not None and transform.scale:
    low, high = next(limits)
    assert all(low <= max(draws.size) <= high for draws in drawn)
    assert len({draws.size for draws in drawn}) > min(10, (high - low) / 2)
  elif transform.base_size is not None:
    assert {draws.size for draws in drawn} == {zoo.longer_side(size, transform.base_size)}
  if transform.rotate:
    low, high = next(limits)
    assert {draws.angle for draws in drawn} == set(range(low, high + 1))
  assert {draws.flip for draws in drawn} == ({True, False} if transform.flip else {False})
  if transform.crop is not None:
    for draws in drawn:
      assert 0 <= draws.row <= max(draws.size[0] - transform.crop[0], 0)
      assert 0 <= draws.column <= max(draws.size[1] - transform.crop[1], 0)


@golden.cases("segmentation_zoo/augmentation*", holding="val*__crop_size")
def test_evaluation_equals_the_original(case):
  for name in (key.removesuffix("__crop_size") for key in case if key.endswith("__crop_size")):
    record = {"image": case[f"{name}__image"], "label": case[f"{name}__label"]}
    length = int(case[f"{name}__crop_size"])
    levels = zoo.centre_crop(record, length)
    np.testing.assert_allclose(levels["image"], case[f"{name}__out_image"], atol=SMOOTH, rtol=0)
    np.testing.assert_array_equal(levels["label"], case[f"{name}__out_label"])
    out = zoo.ZooEval(length)(record)
    item = np.moveaxis(case[f"{name}__item_image"], 0, -1)
    item = np.rint(golden.denormalised(item, case[f"{name}__out_image"].astype(np.uint8)))
    difference = abs(out["image"] - item)
    assert difference.max() <= ITEM_LEVELS and (difference > 0).mean() <= SHARE
    np.testing.assert_array_equal(out["label"], case[f"{name}__item_label"])
    assert out["image"].dtype == np.uint8


def test_margins_can_be_ignored():
  record = {"image": np.full((4, 4, 3), 9, np.uint8), "label": np.full((4, 4), 2, np.uint8)}
  for fill in (0, 255):
    out = zoo.Zoo(fill=fill, crop=(6, 6)).random_map(record, np.random.default_rng(1))
    assert set(np.unique(out["label"])) == {2, fill}
