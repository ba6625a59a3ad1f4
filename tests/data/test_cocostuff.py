"""COCO-Stuff: names, colours, and the 10k release with masks in MATLAB files."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from data import prepare
from data.cocostuff import builder
from semiseg_jax.input import prepared
from tests import golden
from tests.data import builder_checks, trees


def write_10k(root):
  """Lists, images, and masks whose S is the class plus one, 0 where there is none."""
  names = {"train": ["COCO_train2014_81", "COCO_train2014_09"], "test": ["COCO_val2014_07"]}
  labels = trees.draw_labels([*names["train"], *names["test"]], builder.IDS)
  (root / "imageLists").mkdir(parents=True)
  (root / "annotations").mkdir()
  for split, ids in names.items():
    (root / "imageLists" / f"{split}.txt").write_text("\n".join(ids) + "\n")
  for row, (name, label) in enumerate(labels.items()):
    trees.save_image(root / "images" / f"{name}.jpg", row)
    stored = (label.astype(np.uint16) + 1) % 256
    scipy.io.savemat(root / "annotations" / f"{name}.mat", {"S": stored})
  return names, labels


def test_10k(tmp_path):
  names, labels = write_10k(tmp_path / "raw")
  path = prepare.prepare("cocostuff", tmp_path / "raw", tmp_path / "out", "10k")
  dataset = builder_checks.check_prepared(path, "cocostuff", tmp_path / "out")
  assert list(dataset.train.ids) == names["train"] and list(dataset.val.ids) == names["test"]
  for row, name in enumerate(names["train"]):
    np.testing.assert_array_equal(dataset.train[row]["label"], labels[name])


def test_10k_as_squares(tmp_path, monkeypatch):
  names, labels = write_10k(tmp_path / "raw")
  monkeypatch.setattr(builder, "_SQUARE", (13, 13))
  path = prepare.prepare("cocostuff", tmp_path / "raw", tmp_path / "out", "10k_513")
  record, name = prepared.PreparedSource(path, "train")[0], names["train"][0]
  image = Image.open(tmp_path / "raw" / "images" / f"{name}.jpg")
  np.testing.assert_array_equal(record["image"], image.resize((13, 13), Image.Resampling.BILINEAR))
  label = Image.fromarray(labels[name]).resize((13, 13), Image.Resampling.NEAREST)
  np.testing.assert_array_equal(record["label"], label)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (None, "not a readable mask"),
    ({"T": np.zeros(trees.SIZE)}, "not a readable mask"),
    ({"S": np.full(trees.SIZE, 183)}, "a map of 0..182"),
  ],
)
def test_damaged_masks(tmp_path, content, message):
  names, _ = write_10k(tmp_path / "raw")
  path = tmp_path / "raw" / "annotations" / f"{names['train'][1]}.mat"
  if content is None:
    path.write_bytes(path.read_bytes()[:100])
  else:
    scipy.io.savemat(path, content)
  with pytest.raises(ValueError, match=f"{path.name}: .*{message}"):
    prepare.prepare("cocostuff", tmp_path / "raw", tmp_path / "out", "10k")
  path = prepare.prepare("cocostuff", tmp_path / "raw", tmp_path / "out", "10k", skip_bad=True)
  assert len(prepared.PreparedSource(path, "train")) == 1


def test_names_of_the_original():
  names = builder_checks.label_names("coco_stuff")
  assert list(builder.CLASS_NAMES) == names[1:]  # its list starts with "unlabeled"


@golden.cases("segmentation_zoo/constants*", holding="coco")
def test_colours_of_the_original(case):
  np.testing.assert_array_equal(builder.Builder.PALETTE, case["coco"])
