"""Masks that number the classes as a neighbour does are told, never skipped one by one."""

import numpy as np
import pytest
from PIL import Image

from data import conventions, prepare
from data.cityscapes import builder as cityscapes
from data.cocostuff import builder as cocostuff
from data.gta5 import builder as gta5
from data.pascal import builder as pascal
from tests.data import trees


def as_is(label):
  return label


def label_ids(label):
  return np.asarray([*cityscapes.IDS, *[0] * 237], np.uint8)[label]


def grey(label):
  colors = np.zeros((256, 3), np.uint8)
  colors[:21], colors[255] = pascal.PALETTE, (224, 224, 192)
  return np.asarray(Image.fromarray(colors[label]).convert("L"))


def from_one(label):
  return label + np.uint8(1)


def within(first, last):
  """Whatever the classes are, ids of first..last."""
  return lambda label: (label % (last + 1 - first) + first).astype(np.uint8)


def instances(label):
  return label.astype(np.uint16) * 100


def train_ids(label):
  return np.append(np.searchsorted(cocostuff.IDS, np.arange(255)), 255).astype(np.uint8)[label]


def palette_of_train_ids(label):
  mask = Image.fromarray(label, mode="P")
  mask.putpalette(gta5.Builder.PALETTE.tobytes())
  return mask


def quantised(label):
  return Image.fromarray(pascal.PALETTE[label % 21]).quantize(21)


NEIGHBOURS = {  # dataset: [(how a mask is written, what is said of the first one)]
  "cityscapes": [
    (as_is, r"labelIds\.png: \[255\] are no label ids.*they look like Cityscapes' train ids"),
    (
      within(0, 18),
      r"no mask of train holds one of the ids \[19, 20, \.\.\., 33\]; they look like",
    ),
    (instances, r"ids up to 25500 are no class ids"),
  ],
  "pascal": [
    (grey, r"\[34, .*\] are no label ids.*; they look like colours that a program made grey"),
    (quantised, r"id \d+ has the colour of id \d+, so a program has renumbered"),
    (within(20, 59), r"they look like the classes of Pascal Context"),
  ],
  "bdd100k": [(label_ids, r"they look like Cityscapes' label ids \(0 to 33\)")],
  "gta5": [(palette_of_train_ids, r"id 7 has the colour of id 20, so a program has renumbered")],
  "ade20k": [(as_is, r"\[255\] are no label ids.* look like classes \(0 to 149, and 255\)")],
  "sun": [
    (as_is, r"\[255\] are no label ids .*they look like classes \(0 to 36, and 255\)"),
    (within(10, 40), r"they look like NYU's 40 classes"),
    (within(1, 13), r"no mask of .*they look like the task of 13 classes"),
  ],
  "coco": [(within(80, 181), r"they look like COCO's category ids or COCO-Stuff's")],
  "cocostuff": [
    (from_one, r"look like ids that count from 1"),
    (train_ids, r"they look like train ids \(0 to 170, and 255\)"),
    (within(0, 10), r"no mask of train holds .*look like masks of things alone"),
  ],
  "camvid": [
    (as_is, r"\[255\] are no label ids.*they look like SegNet's ids with 255 for 11"),
    (within(0, 31), r"they look like ids of all 32 classes"),
  ],
  "kvasir": [(as_is, r"levels end at \d+, where a polyp is 255; they look like class ids")],
}
CASES = [(name, *case) for name, cases in NEIGHBOURS.items() for case in cases]


@pytest.mark.parametrize(("name", "write", "message"), CASES)
def test_neighbours(name, write, message, tmp_path, monkeypatch):
  tree = trees.TREES[name](tmp_path / "raw", monkeypatch)
  for split in tree.pairs.values():
    for item, pair in split.items():
      written = write(tree.labels[item])
      if isinstance(written, Image.Image):
        written.save(pair.mask)
      else:
        trees.save(pair.mask, written)
  for skip_bad in (False, True):
    with pytest.raises(ValueError, match=f"(?s){message}.*take |{message}; unpack") as error:
      prepare.prepare(name, tmp_path / "raw", tmp_path / "out", tree.variant, skip_bad=skip_bad)
    assert "\n" not in str(error.value)


def test_every_dataset_has_neighbours():
  assert set(NEIGHBOURS) == {name.split()[0] for name in trees.TREES}


def test_objects_in_place_of_classes():
  objects = np.tril(np.ones((10, 21), int))  # background, and up to nine objects
  with pytest.raises(ValueError, match=r"1, 2, \.\.\. without a gap; they look like numbers"):
    conventions.check_objects("train", objects, "others")
  conventions.check_objects("train", objects[:5], "others")  # too few to tell
  conventions.check_objects("train", np.tile(objects[1], (10, 1)), "others")  # all of one class
  classes = objects.copy()
  classes[4, 15] = 1
  conventions.check_objects("train", classes, "others")


def test_mostly_wrong_masks_are_not_skipped(tmp_path, monkeypatch):
  tree = trees.write_cityscapes(tmp_path / "raw", monkeypatch)
  for pair in list(tree.pairs["train"].values())[:2]:
    trees.save(pair.mask, np.zeros((*trees.SIZE, 3), np.uint8))
  with pytest.raises(ValueError, match=r"most masks of train \(2\) are not of this dataset"):
    prepare.prepare("cityscapes", tmp_path / "raw", tmp_path / "out", "full", skip_bad=True)


def test_ids_in_more_bits_are_the_same_ids(tmp_path, monkeypatch):
  tree = trees.write_cityscapes(tmp_path / "raw", monkeypatch)
  for pair in tree.pairs["train"].values():
    trees.save(pair.mask, np.asarray(Image.open(pair.mask)).astype(np.uint16))
  path = prepare.prepare("cityscapes", tmp_path / "raw", tmp_path / "out", "full")
  source = prepare.prepared.PreparedSource(path, "train")
  for row, item in enumerate(tree.pairs["train"]):
    np.testing.assert_array_equal(source[row]["label"], tree.labels[item])
