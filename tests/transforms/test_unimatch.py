"""UniMatch's geometry against the original's outputs, draws given."""

import numpy as np
import pytest

from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms import geometry, unimatch
from semiseg_jax.transforms.unimatch import Draws, UniMatch, UniMatchUnlabeled, resized_size
from tests import golden


def numbered(case, prefix):
  """Every "case0", "case1", ... of a vector, as dicts of what follows the dot."""
  for i in range(int(case[f"num_{prefix}s"])):
    start = f"{prefix}{i}."
    yield {name.removeprefix(start): case[name] for name in case if name.startswith(start)}


@golden.cases("unimatch_v2/data_resize*")
def test_resizing(case):
  for item in numbered(case, "case"):
    image, label = (case[f"{name}{item['source']}"] for name in ("image", "label"))
    low, high = (int(scale * max(label.shape)) for scale in UniMatch().scales)
    assert (low, high) == tuple(item["draw_bounds"])
    size = resized_size(label.shape, int(item["long_side"]))
    np.testing.assert_array_equal(geometry.pillow_bilinear(image, size), item["image"])
    np.testing.assert_array_equal(geometry.pillow_nearest(label, size), item["label"])


@golden.cases("unimatch_v2/data_crop*")
def test_crops(case):
  size = (int(case["crop_size"]),) * 2
  for item in numbered(case, "case"):
    image, label = (case[f"{name}{item['source']}"] for name in ("image", "label"))
    column, row = item["x_y"]
    record = {"image": image, "label": label}
    draws = Draws(max(label.shape), row, column, False)
    out = unimatch.augment(record, draws, size)
    np.testing.assert_array_equal(out["image"], item["image"])
    # the original writes 254 into the margins of unlabelled images
    expected = np.where(item["label"] == item["pad_label"], IGNORE, item["label"])
    np.testing.assert_array_equal(out["label"], expected)


def replay(item, size):
  """Draws of the geometry, the first of an item; the corner is recorded x first."""
  length, column, row, coin = item["draw_values_f64"][:4]
  kinds = item["draw_kinds"][:4]
  assert kinds[0].startswith("randint") and kinds[3] == "random"
  return Draws(int(length), int(row), int(column), bool(coin < 0.5))


@golden.cases("unimatch_v2/data_train_l*")
def test_labelled_items(case):
  crop = (int(case["crop_size"]),) * 2
  for item in numbered(case, "item"):
    record = {name: case[f"raw_{name}{item['source']}"] for name in ("image", "label")}
    out = unimatch.augment(record, replay(item, record["label"].shape), crop)
    np.testing.assert_array_equal(out["image"], golden.nhwc(item["image_level"]))
    np.testing.assert_array_equal(out["label"], item["label"])


@golden.cases("unimatch_v2/data_train_u*")
def test_weak_views_and_their_margins(case):
  crop = (int(case["crop_size"]),) * 2
  for item in numbered(case, "item"):
    image = case[f"raw_image{item['source']}"]
    record = {"image": image, "label": np.zeros(image.shape[:2], np.uint8)}
    out = unimatch.augment(record, replay(item, image.shape[:2]), crop)
    np.testing.assert_array_equal(out["image"], golden.nhwc(item["weak_level"]))
    np.testing.assert_array_equal(out["label"] == IGNORE, item["ignore_mask"] == IGNORE)


@pytest.mark.parametrize("size", [(30, 20), (21, 44)])
def test_draws_lie_within_their_ranges(size):
  transform = UniMatch(crop=(28, 28))
  drawn = [transform.draw(np.random.default_rng(seed), size) for seed in range(300)]
  lengths = {draws.length for draws in drawn}
  assert min(lengths) == max(size) // 2 and max(lengths) == 2 * max(size)
  assert {draws.flip for draws in drawn} == {False, True}
  for draws in drawn:
    height, width = resized_size(size, draws.length)
    assert 0 <= draws.row <= max(height - 28, 0) and 0 <= draws.column <= max(width - 28, 0)


def test_an_unlabelled_image_has_no_labels():
  image = np.full((10, 12, 3), 7, np.uint8)
  record = {"image": image, "label": np.full((10, 12), IGNORE, np.uint8)}
  transform = UniMatchUnlabeled(scales=(1.0, 1.0), crop=(16, 16))
  out = transform.random_map(record, np.random.default_rng(0))
  np.testing.assert_array_equal(out["label"] == 0, out["image"][..., 0] == 7)
  assert (out["label"] == 0).sum() == 120 and set(np.unique(out["label"])) == {0, IGNORE}
