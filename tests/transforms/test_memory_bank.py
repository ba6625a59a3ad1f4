"""The memory bank's loaders against the original's crops, draws given."""

import re

import numpy as np

from semiseg_jax.transforms import memory_bank
from tests import golden


def rgb(array, bgr):
  """[3,H,W] in either order of channels as [H,W,3] RGB."""
  return np.moveaxis(array[::-1] if bgr else array, 0, -1)


def record_of(case, source):
  """The sources as our records hold them: RGB, train ids."""
  if f"raw_bgr.{source}" in case:
    return {"image": case[f"raw_bgr.{source}"][..., ::-1], "label": case[f"raw_label.{source}"]}
  (label_map,) = (key for key in case if re.fullmatch(r"label_map_\d+", key))  # its number of ids
  label = case[label_map].astype(np.uint8)[case[f"raw_label_ids.{source}"]]
  return {"image": case[f"raw_image.{source}"], "label": label}


@golden.cases("memory_bank/data_*")
def test_training_equals_the_original(case):
  assert case["num_train_cases"] > 0
  for k in range(case["num_train_cases"]):
    get = lambda key, k=k: case[f"train.{k}.{key}"]
    record = record_of(case, get("source"))
    if f"train.{k}.crop_x1_y1" in case:
      draws = memory_bank.Draws(*get("crop_x1_y1")[::-1])
      if not get("high_res"):
        record = memory_bank.halve(record)
    else:
      draws = memory_bank.Draws(*get("offset_row_col"))
    out = memory_bank.pad_crop(record, draws, get("label").shape)
    np.testing.assert_array_equal(out["image"], rgb(get("image"), get("bgr")))
    np.testing.assert_array_equal(out["label"], get("label"))
    assert out["image"].dtype == out["label"].dtype == np.uint8


@golden.cases("memory_bank/data_*", holding="eval.*.high_res")
def test_evaluation_equals_the_original(case):
  transform = memory_bank.MemoryBankEval()
  for name in (key.removesuffix(".high_res") for key in case if re.match("eval.*high_res", key)):
    # which source and order of channels a case has is not recorded
    found = False
    for source in range(sum(key.startswith("raw_image") for key in case)):
      record = record_of(case, source)
      if case[f"{name}.high_res"]:
        out = record
      else:
        out = transform(record)
        assert out["image"].shape[:2] == transform.output_size(record["label"].shape)
      np.testing.assert_array_equal(out["label"], record["label"])
      for bgr in (False, True):
        equal = np.array_equal(out["image"], rgb(case[f"{name}.image"], bgr))
        found |= equal and np.array_equal(out["label"], case[f"{name}.label"])
    assert found, name


@golden.cases("memory_bank/data_*")
def test_crops_are_drawn_where_the_original_draws_them(case):
  for k in range(case["num_train_cases"]):
    crop = case[f"train.{k}.label"].shape
    halve = not case.get(f"train.{k}.high_res", True)
    record = record_of(case, case[f"train.{k}.source"])
    transform = memory_bank.MemoryBank(halve, crop)
    bounds = case[f"train.{k}.draw_upper_bounds"]
    if f"train.{k}.crop_x1_y1" in case:
      bounds = bounds[::-1]
    height, width = record["label"].shape
    marks = np.arange(height * width, dtype=np.int32).reshape(height, width)
    rows, columns = set(), set()
    rng = np.random.default_rng(k)
    for _ in range(12 * (max(bounds) + 1)):
      out = transform.random_map({**record, "label": marks}, rng)["label"]
      row, column = divmod(int(out[0, 0]), width)
      rows.add(row)
      columns.add(column)
    assert len(rows) == bounds[0] + 1 and len(columns) == bounds[1] + 1
