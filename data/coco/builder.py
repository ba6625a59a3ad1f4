"""COCO's 80 things and background: 118,287 training and 5,000 validation images of 2017."""

import pathlib
from types import MappingProxyType

import tensorflow_datasets as tfds

from data import common
from semiseg_jax.labels import IGNORE

CLASS_NAMES, PALETTE = common.read_classes("coco")


class Builder(common.FileBuilder):
  """JPEGs as they are; the masks' ids are the classes (UniMatch)."""

  name = "semiseg_coco"
  VERSION = tfds.core.Version("1.0.0")
  CLASS_NAMES, PALETTE = CLASS_NAMES, PALETTE
  CLASS_OF_ID = common.class_of_id(range(81), ignored=[IGNORE])
  OTHER_IDS = MappingProxyType(
    {"COCO's category ids or COCO-Stuff's (0 to 182, and 255)": {*range(183), IGNORE}}
  )
  MASKS = "the masks that UniMatch's authors offer as they are"
  NUM_IMAGES = MappingProxyType({"train": 118_287, "val": 5_000})
  HOMEPAGE = "https://cocodataset.org"
  LICENSE = "annotations: CC BY 4.0; images: Flickr's terms of use"

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    return {
      split: common.pairs(
        common.part(raw, f"{split}2017"), common.part(raw, "masks"), "*.jpg", ".png"
      )
      for split in common.SPLITS
    }
