"""GTA5: palettes of ids, the official layout and its division, the half variant."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from data import prepare
from data.cityscapes import builder as cityscapes
from data.gta5 import builder
from semiseg_jax.input import prepared
from semiseg_jax.labels import IGNORE
from tests.data import trees


def write_official(root, count):
  """Flat, with palette labels of all ids that there are."""
  ids = np.resize(np.arange(35, dtype=np.uint8), trees.SIZE)
  palette = np.random.default_rng(0).integers(0, 256, 768, np.uint8)
  for number in range(1, count + 1):
    trees.save_image(root / "images" / f"{number:05d}.png", number)
    mask = Image.fromarray(ids, mode="P")
    mask.putpalette(palette.tobytes())
    (root / "labels").mkdir(exist_ok=True)
    mask.save(root / "labels" / f"{number:05d}.png")
  return ids


def test_official_labels_are_cityscapes_ids(tmp_path, monkeypatch):
  ids = write_official(tmp_path / "raw", 5)
  monkeypatch.setattr(builder, "HELD_OUT", 2)
  path = prepare.prepare("gta5", tmp_path / "raw", tmp_path / "out", "full")
  train, val = (prepared.PreparedSource(path, split) for split in ("train", "val"))
  assert (train.ids, val.ids) == (("00002", "00004"), ("00001", "00003", "00005"))
  expected = np.where(ids == 34, IGNORE, cityscapes.CLASS_OF_ID[ids])  # 34, the license plate
  np.testing.assert_array_equal(train[0]["label"], expected)


def test_an_index_that_is_no_label_id(tmp_path):
  write_official(tmp_path / "raw", 2)
  path = tmp_path / "raw" / "labels" / "00002.png"
  ids = np.asarray(Image.open(path)).copy()
  ids[3, 4] = 35  # the palette of a file that another program has saved
  mask = Image.fromarray(ids, mode="P")
  mask.putpalette(bytes(768))
  mask.save(path)
  with pytest.raises(ValueError, match=r"00002\.png: \[35\] are no label ids"):
    prepare.prepare("gta5", tmp_path / "raw", tmp_path / "out", "full")


def test_official_division(tmp_path):
  write_official(tmp_path / "raw", 4)
  division = {"trainIds": [[1], [4]], "valIds": [[2]], "testIds": [[3]]}
  scipy.io.savemat(tmp_path / "raw" / "split.mat", division)
  path = prepare.prepare("gta5", tmp_path / "raw", tmp_path / "out", "full")
  stored = {s: prepared.PreparedSource(path, s).ids for s in ("train", "val", "test")}
  assert stored == {"train": ("00001", "00004"), "val": ("00002",), "test": ("00003",)}
  division["valIds"] = []
  scipy.io.savemat(tmp_path / "raw" / "split.mat", division)
  with pytest.raises(FileNotFoundError, match="no image for the split val"):
    prepare.prepare("gta5", tmp_path / "raw", tmp_path / "other", "full")
  scipy.io.savemat(tmp_path / "raw" / "split.mat", {"trainIds": [[1]]})
  with pytest.raises(ValueError, match=r"split\.mat: no division into trainIds, valIds"):
    prepare.prepare("gta5", tmp_path / "raw", tmp_path / "other", "full")


def test_half(tmp_path, monkeypatch):
  tree = trees.write_gta5(tmp_path / "raw", monkeypatch)
  path = prepare.prepare("gta5", tmp_path / "raw", tmp_path / "out")
  assert path.parent.name == "half"
  record = prepared.PreparedSource(path, "train")[0]
  pair, size = tree.pairs["train"]["00001"], (trees.SIZE[1] // 2, trees.SIZE[0] // 2)
  half = Image.open(pair.image).resize(size, Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(record["image"], half)
  label = Image.fromarray(tree.labels["00001"]).resize(size, Image.Resampling.NEAREST)
  np.testing.assert_array_equal(record["label"], label)


def test_colours():
  classes = {color: cityscapes.CLASS_OF_ID[i] for color, i in builder.ID_OF_COLOR.items()}
  assert sorted(set(classes.values())) == [*range(19), IGNORE]
  assert classes[(128, 64, 128)] == 0 and classes[(119, 11, 32)] == 18
  assert classes[(111, 74, 0)] == IGNORE


def test_a_grey_mask_is_refused(tmp_path, monkeypatch):
  tree = trees.write_gta5(tmp_path / "raw", monkeypatch)
  trees.save(tree.pairs["train"]["00002"].mask, np.zeros(trees.SIZE, np.uint8))
  with pytest.raises(ValueError, match=r"00002\.png: a mask of mode L"):
    prepare.prepare("gta5", tmp_path / "raw", tmp_path / "out", "full")
