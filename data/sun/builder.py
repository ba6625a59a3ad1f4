"""SUN RGB-D as ReCo divides it: 9,860 training and 475 test photographs of rooms, 37 classes."""

import pathlib
from types import MappingProxyType

import tensorflow_datasets as tfds
from PIL import Image

from data import common
from semiseg_jax.labels import IGNORE

SIZE = (512, 384)  # width, height of what is stored
TRAIN_IMAGES = 5285
TEST_IMAGES = 5050  # the labels of training images are numbered behind those of the test images


class Builder(common.FileBuilder):
  """Images of many sizes, all stored at 512x384."""

  name = "semiseg_sun"
  VERSION = tfds.core.Version("1.0.0")
  CLASS_NAMES, PALETTE = common.read_classes("sun")
  CLASS_OF_ID = common.class_of_id(range(1, 38), ignored=[0])
  OTHER_IDS = MappingProxyType(
    {"classes (0 to 36, and 255)": {*range(37), IGNORE}, "NYU's 40 classes": range(41)}
  )
  WITHOUT_IDS = MappingProxyType({"the task of 13 classes": range(14, 38)})
  MASKS = "sunrgbd_train_test_labels.tar.gz, of the task of 37 classes, as it is"
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
    common.list_files(common.part(raw, folder), "img-*.jpg")
    for folder in ("SUNRGBD-test_images", "SUNRGBD-train_images")
  )
  number_of = lambda image: int(image.stem.removeprefix("img-"))
  offset = 0 if number_of(trains[-1]) > TRAIN_IMAGES else TEST_IMAGES
  numbers = [*map(number_of, tests), *(number_of(image) + offset for image in trains)]
  masks = common.part(raw, "sunrgbd_train_test_labels")
  return [
    common.Item(f"img-{number:06d}", image, masks / f"img-{number:06d}.png")
    for number, image in zip(numbers, tests + trains, strict=True)
  ]


def test_numbers() -> list[int]:
  """Which of the official test images are kept for testing; ReCo trains on the others too."""
  lines = common.read_ids(pathlib.Path(__file__).parent / "test_ids.txt")
  return [int(line) for line in lines]
