"""BDD100K, segmentation: 7,000 training and 1,000 validation driving scenes, 19 classes."""

import pathlib
from types import MappingProxyType

import tensorflow_datasets as tfds

from data import common
from data.cityscapes import builder as cityscapes
from semiseg_jax.labels import IGNORE

_LAYOUTS = (  # folders of images and of masks below RAW, and what follows an image's stem
  ("images/10k", "labels/sem_seg/masks", ".png"),
  ("images", "labels", "_train_id.png"),
)
_ROOTS = ("", "bdd100k/", "seg/", "bdd100k/seg/")


class Builder(common.FileBuilder):
  """1280x720 JPEGs as they are; the masks hold Cityscapes' train ids."""

  name = "semiseg_bdd100k"
  VERSION = tfds.core.Version("1.0.0")
  CLASS_NAMES, PALETTE = cityscapes.CLASS_NAMES, cityscapes.PALETTE
  CLASS_OF_ID = common.class_of_id(range(19), ignored=[IGNORE])
  OTHER_IDS = MappingProxyType({"Cityscapes' label ids (0 to 33)": range(35)})
  WITHOUT_IDS = MappingProxyType({"masks of the drivable area": range(3, 19)})
  MASKS = "the train ids of BDD100K's segmentation (sem_seg/masks, or *_train_id.png) as they are"
  NUM_IMAGES = MappingProxyType({"train": 7000, "val": 1000})
  HOMEPAGE = "https://bdd-data.berkeley.edu"
  LICENSE = "https://doc.bdd100k.com/license.html"

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    images, masks, suffix = find_layout(raw)
    return {
      split: common.pairs(images / split, masks / split, "*.jpg", suffix) for split in common.SPLITS
    }


def find_layout(raw: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, str]:
  """(folder of images, folder of masks, what follows the stem); FileNotFoundError if none fits."""
  for root in _ROOTS:
    for images, masks, suffix in _LAYOUTS:
      train = [common.part(raw, f"{root}{part}/train") for part in (images, masks)]
      if all(path.is_dir() for path in train):
        return train[0].parent, train[1].parent, suffix
  raise FileNotFoundError(
    f"{raw} holds neither images/10k/train with labels/sem_seg/masks/train nor images/train with "
    "labels/train"
  )
