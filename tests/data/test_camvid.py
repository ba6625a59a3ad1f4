"""What only the CamVid builder does: colours of the original release, SegNet's lists of frames."""

import numpy as np
import pytest

from data import prepare
from data.camvid import builder
from semiseg_jax.input import prepared
from semiseg_jax.labels import IGNORE
from tests.data import trees


def test_classes():
  assert builder.CLASS_NAMES[:4] == ("sky", "building", "pole", "road")
  assert builder.CLASS_OF_ID.tolist() == [*range(11), IGNORE, *[-1] * 244]
  assert len(np.unique(builder.PALETTE, axis=0)) == len(builder.CLASS_NAMES) == 11


def test_colours_of_the_release():
  assert len(builder.ID_OF_COLOR) == 32
  assert builder.ID_OF_COLOR[0, 0, 0] == 11
  for class_id, color in enumerate(builder.PALETTE.tolist()):
    if builder.CLASS_NAMES[class_id] != "pavement":  # drawn in another colour by SegNet
      assert builder.ID_OF_COLOR[tuple(color)] == class_id


def test_frames():
  train, val = builder.frames("train"), builder.frames("val")
  assert (len(set(train)), len(set(val))) == (367, 101)
  assert not set(train) & set(val) and train == sorted(train) and val == sorted(val)


def test_every_colour_becomes_its_class(tmp_path, monkeypatch):
  raw = tmp_path / "raw"
  tree = trees.write_camvid_release(raw, monkeypatch)
  colors, ids = zip(*builder.ID_OF_COLOR.items(), strict=True)
  pixels = np.arange(np.prod(trees.SIZE)).reshape(trees.SIZE) % 32
  trees.save(tree.pairs["val"]["0016E5_07959"].mask, np.asarray(colors, np.uint8)[pixels])
  path = prepare.prepare("camvid", raw, tmp_path / "out")
  expected = np.where(np.asarray(ids) == 11, IGNORE, ids)[pixels]
  np.testing.assert_array_equal(prepared.PreparedSource(path, "val")[0]["label"], expected)


def test_without_test_images(tmp_path, monkeypatch):
  tree = trees.write_camvid(tmp_path / "raw", monkeypatch)
  for file in tree.pairs["test"]["Seq05VD_f00000"]:
    file.unlink()
    file.parent.rmdir()
  path = prepare.prepare("camvid", tmp_path / "raw", tmp_path / "out")
  assert list(prepared.read_metadata(path)["splits"]) == ["train", "val"]


def test_missing_frames(tmp_path, monkeypatch):
  raw = tmp_path / "raw"
  tree = trees.write_camvid_release(raw, monkeypatch)
  tree.pairs["val"]["0016E5_07959"].image.unlink()
  with pytest.raises(ValueError, match=r"701_StillsRaw_full/0016E5_07959\.png is missing"):
    prepare.prepare("camvid", raw, tmp_path / "out")
  (raw / "701_StillsRaw_full").rename(raw / "stills")
  with pytest.raises(FileNotFoundError, match=r"no file matches .*raw/train/"):
    prepare.prepare("camvid", raw, tmp_path / "out")
