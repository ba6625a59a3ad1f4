"""Miniature raw trees: what a user would have downloaded of every dataset, with tiny images."""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from data.camvid import builder as camvid
from data.cityscapes import builder as cityscapes
from data.cocostuff import builder as cocostuff
from data.gta5 import builder as gta5
from data.pascal import builder as pascal
from data.sun import builder as sun
from semiseg_jax.labels import IGNORE

SIZE = (20, 30)  # height, width


class Pair(NamedTuple):
  image: pathlib.Path
  mask: pathlib.Path


class Tree(NamedTuple):
  """What was written, and what is to become of it.

  pairs: split -> id -> files, in the order in which they are to be stored; at least two in train.
  labels: id -> the label to be stored. unknown: a mask file's pixels with an id or colour that has
  no class, None where every mask is understood. twin: where a copy of the first training pair is a
  second item of its id, None where the layout has no such place. variant: the one that stores
  images at the size of the files, None if there are no variants.
  """

  pairs: dict[str, dict[str, Pair]]
  labels: dict[str, np.ndarray]
  unknown: np.ndarray | None
  twin: Pair | None
  variant: str | None = None


def save(path: pathlib.Path, array: np.ndarray) -> None:
  """As the suffix says, with all folders above."""
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)


def save_image(path: pathlib.Path, seed: int) -> None:
  save(path, np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8))


def draw_labels(ids: Iterable[str], classes: int | Sequence[int]) -> dict[str, np.ndarray]:
  """id -> uint8 [H,W] of classes (how many, or which) and IGNORE, another one for each."""
  rng, labels = np.random.default_rng(0), {}
  for name in ids:
    labels[name] = rng.choice(classes, SIZE).astype(np.uint8)
    labels[name][:2] = IGNORE
  return labels


def write_pairs(
  pairs: dict[str, dict[str, Pair]],
  labels: dict[str, np.ndarray],
  file_of_label: Callable[[np.ndarray], np.ndarray],
) -> None:
  """file_of_label: classes and IGNORE -> the pixels of the mask file."""
  for seed, (name, (image, mask)) in enumerate(
    item for split in pairs.values() for item in split.items()
  ):
    save_image(image, seed)
    save(mask, file_of_label(labels[name]))


def write_cityscapes(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Tree:
  def pair(split: str, city: str, name: str) -> Pair:
    return Pair(
      root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png",
      root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png",
    )

  frames = {
    "train": ["aachen_000009_000019", "aachen_000010_000019", "ulm_000002_000019"],
    "val": ["lindau_000000_000019"],
  }
  pairs = {
    split: {name: pair(split, name.split("_")[0], name) for name in names}
    for split, names in frames.items()
  }
  labels = draw_labels([*pairs["train"], *pairs["val"]], 19)
  id_of_class = np.zeros(256, np.uint8)
  known = (cityscapes.CLASS_OF_ID >= 0) & (cityscapes.CLASS_OF_ID != IGNORE)
  id_of_class[cityscapes.CLASS_OF_ID[known]] = np.flatnonzero(known)
  write_pairs(pairs, labels, lambda label: id_of_class[label])
  return Tree(pairs, labels, None, pair("train", "ulm", "aachen_000009_000019"), "full")


def write_pascal(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Tree:
  listings = {"train": ["2007_000032", "2007_000039", "2008_000001"], "val": ["2007_000033"]}
  patch.setattr(pascal, "listing", listings.__getitem__)
  folder = root / "VOCdevkit" / "VOC2012"
  pairs = {
    split: {
      name: Pair(
        folder / "JPEGImages" / f"{name}.jpg", folder / "SegmentationClassAug" / f"{name}.png"
      )
      for name in names
    }
    for split, names in listings.items()
  }
  labels = draw_labels([*pairs["train"], *pairs["val"]], 21)
  write_pairs(pairs, labels, lambda label: label)
  return Tree(pairs, labels, unknown=np.full(SIZE, 99, np.uint8), twin=None)


def write_camvid(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Tree:
  """SegNet's layout, with images in both of its formats."""
  pair = lambda split, name, suffix: Pair(
    root / split / f"{name}.{suffix}", root / f"{split}annot" / f"{name}.png"
  )
  names = {
    "train": ["0001TP_006690", "0016E5_00390"],
    "val": ["0016E5_07959"],
    "test": ["Seq05VD_f00000"],
  }
  pairs = {
    split: {name: pair(split, name, "jpg" if split == "val" else "png") for name in of_split}
    for split, of_split in names.items()
  }
  labels = draw_labels([name for split in names.values() for name in split], 11)
  write_pairs(pairs, labels, lambda label: np.where(label == IGNORE, 11, label).astype(np.uint8))
  unknown = np.full(SIZE, 99, np.uint8)
  return Tree(pairs, labels, unknown, twin=pair("val", "0001TP_006690", "png"))


def write_camvid_release(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Tree:
  """The original release, of which the builder lists the training and validation frames."""
  names = {
    "train": ["0001TP_006690", "0016E5_00390"],
    "val": ["0016E5_07959"],
    "test": ["Seq05VD_f00000"],
  }
  patch.setattr(camvid, "frames", names.__getitem__)
  pairs = {
    split: {
      name: Pair(
        root / "701_StillsRaw_full" / f"{name}.png",
        root / "LabeledApproved_full" / f"{name}_L.png",
      )
      for name in of_split
    }
    for split, of_split in names.items()
  }
  labels = draw_labels([name for split in names.values() for name in split], 11)
  color_of_id = np.zeros((256, 3), np.uint8)  # of the many colours of a class, the last
  for color, class_id in camvid.ID_OF_COLOR.items():
    color_of_id[IGNORE if class_id == 11 else class_id] = color
  write_pairs(pairs, labels, lambda label: color_of_id[label])
  return Tree(pairs, labels, unknown=np.full((*SIZE, 3), (1, 2, 3), np.uint8), twin=None)


def write_kvasir(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Tree:
  """The tree that has been split."""
  pair = lambda split, name: Pair(
    root / "images_split" / split / "jpg_images" / f"{name}.jpg",
    root / "masks_split" / split / "jpg_masks" / f"{name}.jpg",
  )
  names = {"train": ["cju0qkwl", "cju1b0y2", "cju1c8ff"], "val": ["cju0roaw"]}
  pairs = {
    split: {name: pair(split, name) for name in of_split} for split, of_split in names.items()
  }
  labels = {}
  for name in [*names["train"], *names["val"]]:  # one value in each of JPEG's blocks: kept exactly
    blocks = np.random.default_rng(len(labels)).integers(0, 2, (3, 4), np.uint8)
    labels[name] = np.kron(blocks, np.ones((8, 8), np.uint8))[: SIZE[0], : SIZE[1]]
  write_pairs(pairs, labels, lambda label: label * np.uint8(255))
  return Tree(pairs, labels, None, pair("val", "cju0qkwl"), "dithered")


def write_gta5(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Tree:
  """Divided already, labels as RGB."""
  pair = lambda split, name: Pair(
    root / "images" / split / f"{name}.png", root / "labels" / split / f"{name}.png"
  )
  names = {"train": ["00001", "00002", "00007"], "val": ["00003"]}
  pairs = {
    split: {name: pair(split, name) for name in of_split} for split, of_split in names.items()
  }
  labels = draw_labels([*names["train"], *names["val"]], 19)
  colors = np.zeros((256, 3), np.uint8)
  colors[:19] = gta5.Builder.PALETTE
  write_pairs(pairs, labels, lambda label: colors[label])
  unknown = np.full((*SIZE, 3), (1, 2, 3), np.uint8)
  return Tree(pairs, labels, unknown, pair("val", "00001"), "full")


def write_sun(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Tree:
  """As downloaded: labels number training images behind the test images."""
  places = {1: "test/1", 2: "test/2", 3: "test/3", 4: "train/1", 5: "train/2"}
  return write_sun_images(root, patch, places)


def write_sun_of_reco(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Tree:
  """As ReCo's preparation leaves it: all but the chosen test images are in the training folder."""
  places = {1: "train/1", 2: "test/2", 3: "train/3", 4: "train/4", 5: "train/5"}
  tree = write_sun_images(root, patch, places)
  mask = root / "sunrgbd_train_test_labels" / "img-000001.png"
  return tree._replace(twin=Pair(root / "SUNRGBD-test_images" / "img-000001.jpg", mask))


def write_sun_images(root: pathlib.Path, patch: pytest.MonkeyPatch, places: dict[int, str]) -> Tree:
  """places: number of the label -> folder and number of the image. Only the second is tested on."""
  patch.setattr(sun, "TRAIN_IMAGES", 2)
  patch.setattr(sun, "TEST_IMAGES", 3)
  patch.setattr(sun, "test_numbers", lambda: [2])
  patch.setattr(sun, "SIZE", SIZE[::-1])  # so that nothing is resized

  def pair(number: int) -> Pair:
    folder, image = places[number].split("/")
    return Pair(
      root / f"SUNRGBD-{folder}_images" / f"img-{int(image):06d}.jpg",
      root / "sunrgbd_train_test_labels" / f"img-{number:06d}.png",
    )

  numbers = {"train": [1, 3, 4, 5], "val": [2]}
  pairs = {
    split: {f"img-{n:06d}": pair(n) for n in of_split} for split, of_split in numbers.items()
  }
  labels = draw_labels([*pairs["train"], *pairs["val"]], 37)
  write_pairs(pairs, labels, lambda label: (label + 1) & 255)
  return Tree(pairs, labels, np.full(SIZE, 99, np.uint8), twin=None)


def write_bdd100k(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Tree:
  """The newer release."""
  root = root / "bdd100k"
  return write_flat(
    root / "images" / "10k", root / "labels" / "sem_seg" / "masks", ("train", "val"), 19,
    lambda label: label, unknown=99,
  )  # fmt: skip


def write_bdd100k_old(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Tree:
  return write_flat(
    root / "seg" / "images", root / "seg" / "labels", ("train", "val"), 19, lambda label: label,
    unknown=99, suffix="_train_id.png",
  )  # fmt: skip


def write_ade20k(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Tree:
  root = root / "ADEChallengeData2016"
  return write_flat(
    root / "images", root / "annotations", ("training", "validation"), 150,
    lambda label: (label + 1) & 255, unknown=151,
  )  # fmt: skip


def write_coco(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Tree:
  pair = lambda split, name: Pair(
    root / f"{split}2017" / f"{name}.jpg", root / "masks" / f"{name}.png"
  )
  pairs = {
    "train": {n: pair("train", n) for n in ("000000000009", "000000000025", "000000000030")},
    "val": {"000000000139": pair("val", "000000000139")},
  }
  labels = draw_labels([*pairs["train"], *pairs["val"]], 81)
  write_pairs(pairs, labels, lambda label: label)
  return Tree(pairs, labels, np.full(SIZE, 200, np.uint8), pair("val", "000000000009"))


def write_cocostuff(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Tree:
  tree = write_flat(
    root / "images", root / "annotations", ("train2017", "val2017"), cocostuff.IDS,
    lambda label: label, unknown=200,
  )  # fmt: skip
  return tree._replace(variant="164k")


def write_flat(
  images: pathlib.Path,
  masks: pathlib.Path,
  folders: tuple[str, str],
  classes: int | Sequence[int],
  ids_of: Callable[[np.ndarray], np.ndarray],
  unknown: int,
  suffix: str = ".png",
) -> Tree:
  """One folder of JPEGs and one of masks for each of train and val."""
  pair = lambda folder, name: Pair(
    images / folder / f"{name}.jpg", masks / folder / f"{name}{suffix}"
  )
  train, val = folders
  pairs = {
    "train": {name: pair(train, name) for name in ("a_1", "a_2", "b_0")},
    "val": {"c_9": pair(val, "c_9")},
  }
  labels = draw_labels([*pairs["train"], *pairs["val"]], classes)
  write_pairs(pairs, labels, ids_of)
  return Tree(pairs, labels, np.full(SIZE, unknown, np.uint8), pair(val, "a_1"))


TREES: dict[str, Callable[[pathlib.Path, pytest.MonkeyPatch], Tree]] = {
  # dataset, and which of its layouts; the patch shortens lists of ids that a builder carries
  "ade20k": write_ade20k,
  "bdd100k": write_bdd100k,
  "bdd100k older release": write_bdd100k_old,
  "camvid": write_camvid,
  "camvid release": write_camvid_release,
  "cityscapes": write_cityscapes,
  "coco": write_coco,
  "cocostuff": write_cocostuff,
  "gta5": write_gta5,
  "kvasir": write_kvasir,
  "pascal": write_pascal,
  "sun": write_sun,
  "sun rearranged": write_sun_of_reco,
}
