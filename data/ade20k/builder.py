"""ADE20K, scene parsing benchmark: 20,210 training and 2,000 validation images, 150 classes."""

import pathlib
from types import MappingProxyType

import tensorflow_datasets as tfds

from data import common
from semiseg_jax.labels import IGNORE

_FOLDERS = {"train": "training", "val": "validation"}
CLASS_NAMES, PALETTE = common.read_classes("ade20k")


class Builder(common.FileBuilder):
  """JPEGs as they are; the class is the id in the mask less one."""

  name = "semiseg_ade20k"
  VERSION = tfds.core.Version("1.0.0")
  CLASS_NAMES, PALETTE = CLASS_NAMES, PALETTE
  CLASS_OF_ID = common.class_of_id(range(1, 151), ignored=[0])
  OTHER_IDS = MappingProxyType({"classes (0 to 149, and 255)": {*range(150), IGNORE}})
  MASKS = "the annotations of ADEChallengeData2016.zip as they are; the full ADE20K is not read"
  NUM_IMAGES = MappingProxyType({"train": 20_210, "val": 2_000})
  HOMEPAGE = "http://sceneparsing.csail.mit.edu"
  LICENSE = "non-commercial, see https://groups.csail.mit.edu/vision/datasets/ADE20K/terms/"

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    images, masks = common.part(raw, "images"), common.part(raw, "annotations")
    return {
      split: common.pairs(images / folder, masks / folder, "*.jpg", ".png")
      for split, folder in _FOLDERS.items()
    }
