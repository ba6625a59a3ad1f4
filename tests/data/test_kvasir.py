"""What only the Kvasir builder does: grey masks made classes, and its own hold-out."""

import io

import numpy as np
import pytest
from PIL import Image

from data import prepare
from data.kvasir import builder
from semiseg_jax.input import prepared
from tests import golden
from tests.data import builder_checks, trees


@golden.cases("segmentation_zoo/constants*", holding="kvasir_grey")
def test_dithered_as_the_original(case):
  label = builder.dithered(Image.fromarray(case["kvasir_grey"]))
  np.testing.assert_array_equal(label, case["kvasir_label"])


def test_the_threshold_is_no_dithering():
  grey = np.arange(256, dtype=np.uint8).reshape(8, 32)
  labels = builder.thresholded(Image.fromarray(grey))
  np.testing.assert_array_equal(labels, grey >= 128)
  assert not np.array_equal(labels, builder.dithered(Image.fromarray(grey)))


@golden.cases("segmentation_zoo/constants*", holding="ade20k")
def test_colours(case):
  np.testing.assert_array_equal(builder.PALETTE, case["ade20k"][:2])  # the original's choice


def test_names():
  assert list(builder.CLASS_NAMES) == builder_checks.label_names("kvasir")


@pytest.fixture
def official(tmp_path):
  """images/ and masks/ of 17 pictures, the masks as soft as JPEG leaves them; and their classes."""
  raw = tmp_path / "raw"
  for seed in range(17):
    trees.save_image(raw / "images" / f"c{seed:02}.jpg", seed)
    grey = np.random.default_rng(seed).integers(0, 256, (*trees.SIZE, 1), np.uint8)
    trees.save(raw / "masks" / f"c{seed:02}.jpg", np.repeat(grey, 3, 2))  # RGB, as published
  return raw


def decoded(raw, name):
  return Image.open(io.BytesIO((raw / "masks" / f"{name}.jpg").read_bytes()))


def test_held_out(official, tmp_path):
  path = prepare.prepare("kvasir", official, tmp_path / "out", "threshold")
  dataset = builder_checks.check_prepared(path, "kvasir", tmp_path / "out")
  assert (len(dataset.train), len(dataset.val)) == (15, 2)
  assert sorted([*dataset.train.ids, *dataset.val.ids]) == [f"c{i:02}" for i in range(17)]
  for row, name in enumerate(dataset.train.ids):
    expected = np.asarray(decoded(official, name).convert("L")) >= 128
    np.testing.assert_array_equal(dataset.train[row]["label"], expected)


def test_hold_out_depends_on_the_names_alone():
  names = [f"c{number}" for number in range(1000)]
  split = builder.hold_out(names)
  assert {key: len(value) for key, value in split.items()} == builder.Builder.NUM_IMAGES
  assert set(builder.hold_out(names[::-1])["val"]) == set(split["val"])
  assert split["val"][:3] == ["c0", "c4", "c18"]  # for good: results refer to it


def test_lists(official, tmp_path):
  (official / "train.txt").write_text("c03\nc01\n")
  prepare_it = lambda: prepare.prepare("kvasir", official, tmp_path / "out")
  with pytest.raises(FileNotFoundError, match=r"the list of ids .*val\.txt is missing"):
    prepare_it()
  (official / "val.txt").write_text("c02\nc99\n")
  with pytest.raises(ValueError, match=r"images/c99\.jpg is missing"):
    prepare_it()
  (official / "val.txt").write_text("c02\nc03\n")
  with pytest.raises(ValueError, match=r"c03\.jpg have the same id c03"):
    prepare_it()
  (official / "val.txt").write_text("c02\n")
  source = prepared.PreparedSource(prepare_it(), "train")
  assert source.ids == ("c03", "c01")
  np.testing.assert_array_equal(source[0]["label"], decoded(official, "c03").convert("1"))


def test_nothing_there(tmp_path):
  (tmp_path / "raw" / "masks").mkdir(parents=True)
  with pytest.raises(FileNotFoundError, match=r"no file matches .*images/\*\.jpg"):
    prepare.prepare("kvasir", tmp_path / "raw", tmp_path / "out")
