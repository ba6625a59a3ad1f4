"""ADE20K, scene parsing benchmark: 20,210 training and 2,000 validation images, 150 classes."""

import pathlib
from types import MappingProxyType

import numpy as np
import tensorflow_datasets as tfds

from data import common
from semiseg_jax.labels import IGNORE

_FOLDERS = {"train": "training", "val": "validation"}
_LINES = (pathlib.Path(__file__).parent / "classes.tsv").read_text().splitlines()
CLASS_NAMES = tuple(line.split("\t")[0] for line in _LINES)
PALETTE = np.asarray([line.split("\t")[1].split() for line in _LINES], np.uint8)


class Builder(common.FileBuilder):
  """JPEGs as they are; the class is the id in the mask less one."""

  name = "semiseg_ade20k"
  VERSION = tfds.core.Version("1.0.0")
  CLASS_NAMES, PALETTE = CLASS_NAMES, PALETTE
  CLASS_OF_ID = common.class_of_id({0: IGNORE} | {i + 1: i for i in range(150)})
  NUM_IMAGES = MappingProxyType({"train": 20_210, "val": 2_000})
  HOMEPAGE = "http://sceneparsing.csail.mit.edu"
  LICENSE = "non-commercial, see https://groups.csail.mit.edu/vision/datasets/ADE20K/terms/"

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    nested = raw / "ADEChallengeData2016"
    root = nested if nested.is_dir() else raw
    return {
      split: [
        common.Item(image.stem, image, root / "annotations" / folder / f"{image.stem}.png")
        for image in common.list_files(root / "images" / folder, "*.jpg")
      ]
      for split, folder in _FOLDERS.items()
    }
