"""SUN RGB-D as ReCo divides it: 9,860 training and 475 test photographs of rooms, 37 classes."""

import pathlib
from types import MappingProxyType

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from data import common
from semiseg_jax.labels import IGNORE

_CLASSES = (
  ("wall", (148, 65, 137)),
  ("floor", (255, 116, 69)),
  ("cabinet", (86, 156, 137)),
  ("bed", (202, 179, 158)),
  ("chair", (155, 99, 235)),
  ("sofa", (161, 107, 108)),
  ("table", (133, 160, 103)),
  ("door", (76, 152, 126)),
  ("window", (84, 62, 35)),
  ("bookshelf", (44, 80, 130)),
  ("picture", (31, 184, 157)),
  ("counter", (101, 144, 77)),
  ("blinds", (23, 197, 62)),
  ("desk", (141, 168, 145)),
  ("shelves", (142, 151, 136)),
  ("curtain", (115, 201, 77)),
  ("dresser", (100, 216, 255)),
  ("pillow", (57, 156, 36)),
  ("mirror", (88, 108, 129)),
  ("floor mat", (105, 129, 112)),
  ("clothes", (42, 137, 126)),
  ("ceiling", (155, 108, 249)),
  ("books", (166, 148, 143)),
  ("fridge", (81, 91, 87)),
  ("tv", (100, 124, 51)),
  ("paper", (73, 131, 121)),
  ("towel", (157, 210, 220)),
  ("shower curtain", (134, 181, 60)),
  ("box", (221, 223, 147)),
  ("whiteboard", (123, 108, 131)),
  ("person", (161, 66, 179)),
  ("night stand", (163, 221, 160)),
  ("toilet", (31, 146, 98)),
  ("sink", (99, 121, 30)),
  ("lamp", (49, 89, 240)),
  ("bathtub", (116, 108, 9)),
  ("bag", (161, 176, 169)),
)
SIZE = (512, 384)  # width, height of what is stored
TRAIN_IMAGES = 5285
TEST_IMAGES = 5050  # the labels of training images are numbered behind those of the test images


class Builder(common.FileBuilder):
  """Images of many sizes, all stored at 512x384."""

  name = "semiseg_sun"
  VERSION = tfds.core.Version("1.0.0")
  CLASS_NAMES = tuple(name for name, _ in _CLASSES)
  PALETTE = np.asarray([color for _, color in _CLASSES], np.uint8)
  CLASS_OF_ID = common.class_of_id({0: IGNORE} | {i + 1: i for i in range(len(_CLASSES))})
  NUM_IMAGES = MappingProxyType({"train": 9860, "val": 475})
  HOMEPAGE = "https://rgbd.cs.princeton.edu"
  LICENSE = "see the homepage"

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    chosen = {f"img-{number:06d}" for number in test_numbers()}
    listed: dict[str, list[common.Item]] = {split: [] for split in common.SPLITS}
    for item in list_images(raw):
      listed["val" if item.name in chosen else "train"].append(item)
    if not listed["val"]:
      raise FileNotFoundError(f"{raw / 'SUNRGBD-test_images'} has none of the 475 test images")
    return listed

  def resize(self, image: Image.Image) -> Image.Image:
    return image if image.size == SIZE else image.resize(SIZE, Image.Resampling.BICUBIC)


def list_images(raw: pathlib.Path) -> list[common.Item]:
  """All images and the places of their masks, by the number of the mask.

  ReCo's preparation, in place, gives training images the numbers of their masks and puts test
  images among them: a tree in that state has numbers beyond those of the download.
  Raises FileNotFoundError if one of the folders has no images.
  """
  tests, trains = (
    common.list_files(raw / folder, "img-*.jpg")
    for folder in ("SUNRGBD-test_images", "SUNRGBD-train_images")
  )
  number_of = lambda image: int(image.stem.removeprefix("img-"))
  offset = 0 if number_of(trains[-1]) > TRAIN_IMAGES else TEST_IMAGES
  numbers = [*map(number_of, tests), *(number_of(image) + offset for image in trains)]
  masks = raw / "sunrgbd_train_test_labels"
  return [
    common.Item(f"img-{number:06d}", image, masks / f"img-{number:06d}.png")
    for number, image in zip(numbers, tests + trains, strict=True)
  ]


def test_numbers() -> list[int]:
  """Which of the official test images are kept for testing; ReCo trains on the others too."""
  lines = common.read_ids(pathlib.Path(__file__).parent / "test_ids.txt")
  return [int(line) for line in lines]
