"""Cityscapes, fine annotations: 2975 training and 500 validation street scenes, 19 classes."""

import pathlib
from types import MappingProxyType

import tensorflow_datasets as tfds
from PIL import Image

from data import common
from semiseg_jax.labels import IGNORE

CLASS_NAMES, PALETTE = common.read_classes("cityscapes")
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # in the files
CLASS_OF_ID = common.class_of_id(IDS, ignored=range(34))
TRAIN_IDS = "Cityscapes' train ids (0 to 18, and 255)"
_HALF = (1024, 512)  # width, height


class Builder(common.FileBuilder):
  """Variants: full (2048x1024, the files' own bytes), and two ways to 1024x512."""

  name = "semiseg_cityscapes"
  VERSION = tfds.core.Version("1.1.0")
  BUILDER_CONFIGS = (
    tfds.core.BuilderConfig(name="half", description="1024x512: bicubic images (ReCo)"),
    tfds.core.BuilderConfig(
      name="half_bilinear", description="1024x512: bilinear images (memory bank, C3)"
    ),
    tfds.core.BuilderConfig(name="full", description="2048x1024, images byte for byte"),
  )
  CLASS_NAMES, PALETTE, CLASS_OF_ID = CLASS_NAMES, PALETTE, CLASS_OF_ID
  OTHER_IDS = MappingProxyType({TRAIN_IDS: {*range(20), IGNORE}})
  WITHOUT_IDS = MappingProxyType({TRAIN_IDS: IDS[6:]})
  MASKS = "*_gtFine_labelIds.png of gtFine_trainvaltest.zip as they are"
  NUM_IMAGES = MappingProxyType({"train": 2975, "val": 500, "extra": 19998})
  HOMEPAGE = "https://www.cityscapes-dataset.com"
  LICENSE = "https://www.cityscapes-dataset.com/license/"

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    listed = {split: list_pairs(raw, split) for split in common.SPLITS}
    if common.part(raw, "leftImg8bit/train_extra").is_dir():
      extra = list_pairs(raw, "train_extra")
      listed["extra"] = [item._replace(mask=None) for item in extra]
    return listed

  def resize(self, image: Image.Image) -> Image.Image:
    if self.builder_config.name == "full":
      return image
    bilinear = self.builder_config.name == "half_bilinear"
    return image.resize(_HALF, Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC)


def list_pairs(raw: pathlib.Path, split: str) -> list[common.Item]:
  """Images and where their masks belong, sorted by city, then by name.

  Raises FileNotFoundError if there are no images.
  """
  items = []
  masks = common.part(raw, f"gtFine/{split}")
  for image in common.list_files(common.part(raw, f"leftImg8bit/{split}"), "*/*_leftImg8bit.png"):
    name, city = image.name.removesuffix("_leftImg8bit.png"), image.parent.name
    mask = masks / city / f"{name}_gtFine_labelIds.png"
    items.append(common.Item(name, image, mask))
  return items
