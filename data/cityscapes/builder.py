"""Cityscapes, fine annotations: 2975 training and 500 validation street scenes, 19 classes."""

import pathlib
from types import MappingProxyType

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from data import common
from semiseg_jax.labels import IGNORE

_CLASSES = (  # class, id in the files, colour
  ("road", 7, (128, 64, 128)),
  ("sidewalk", 8, (244, 35, 232)),
  ("building", 11, (70, 70, 70)),
  ("wall", 12, (102, 102, 156)),
  ("fence", 13, (190, 153, 153)),
  ("pole", 17, (153, 153, 153)),
  ("traffic light", 19, (250, 170, 30)),
  ("traffic sign", 20, (220, 220, 0)),
  ("vegetation", 21, (107, 142, 35)),
  ("terrain", 22, (152, 251, 152)),
  ("sky", 23, (70, 130, 180)),
  ("person", 24, (220, 20, 60)),
  ("rider", 25, (255, 0, 0)),
  ("car", 26, (0, 0, 142)),
  ("truck", 27, (0, 0, 70)),
  ("bus", 28, (0, 60, 100)),
  ("train", 31, (0, 80, 100)),
  ("motorcycle", 32, (0, 0, 230)),
  ("bicycle", 33, (119, 11, 32)),
)
CLASS_NAMES = tuple(name for name, _, _ in _CLASSES)
PALETTE = np.asarray([color for _, _, color in _CLASSES], np.uint8)
CLASS_OF_ID = common.class_of_id(
  {file_id: class_id for class_id, (_, file_id, _) in enumerate(_CLASSES)}, others=IGNORE
)
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
  NUM_IMAGES = MappingProxyType({"train": 2975, "val": 500, "extra": 19998})
  HOMEPAGE = "https://www.cityscapes-dataset.com"
  LICENSE = "https://www.cityscapes-dataset.com/license/"

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    listed = {split: list_pairs(raw, split) for split in common.SPLITS}
    if (raw / "leftImg8bit" / "train_extra").is_dir():
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
  for image in common.list_files(raw / "leftImg8bit" / split, "*/*_leftImg8bit.png"):
    name, city = image.name.removesuffix("_leftImg8bit.png"), image.parent.name
    mask = raw / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"
    items.append(common.Item(name, image, mask))
  return items
