"""Kvasir-SEG: 1000 endoscopic images with the outlines of polyps, 2 classes."""

import hashlib
import pathlib
from types import MappingProxyType

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from data import common, conventions
from semiseg_jax.input.decode import DataError

CLASS_NAMES = ("background", "polyp")
PALETTE = np.asarray([(0, 0, 0), (120, 120, 120)], np.uint8)
CLASS_OF_ID = common.class_of_id(range(2))
_HELD_OUT = 0.12  # 120 of 1000, as in the official lists
_THRESHOLD = 128
_DARK = 64  # in the official masks polyps are white


class Builder(common.FileBuilder):
  """Variants: two ways to make classes of masks that are grey JPEGs. Images byte for byte."""

  name = "semiseg_kvasir"
  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = (
    tfds.core.BuilderConfig(
      name="dithered", description="masks as in the original: Pillow's mode 1, error diffusion"
    ),
    tfds.core.BuilderConfig(name="threshold", description=f"polyp where grey >= {_THRESHOLD}"),
  )
  CLASS_NAMES, PALETTE, CLASS_OF_ID = CLASS_NAMES, PALETTE, CLASS_OF_ID
  WITHOUT_IDS = MappingProxyType({"black pictures": (1,)})
  MASKS = "the masks of kvasir-seg.zip as they are"
  NUM_IMAGES = MappingProxyType({"train": 880, "val": 120})
  HOMEPAGE = "https://datasets.simula.no/kvasir-seg/"
  LICENSE = "research and education; see https://datasets.simula.no/kvasir-seg/"

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    images, masks = common.part(raw, "images_split"), common.part(raw, "masks_split")
    if not images.is_dir():
      return list_whole(raw)
    return {
      split: common.pairs(
        images / split / "jpg_images", masks / split / "jpg_masks", "*.jpg", ".jpg"
      )
      for split in common.SPLITS
    }

  def read_mask(self, path: pathlib.Path) -> Image.Image:
    mask = common.decode(path.read_bytes(), path)
    brightest = np.asarray(mask.convert("L")).max()
    if 0 < brightest < _DARK:
      message = f"{path}: levels end at {brightest}, where a polyp is 255; they look like class ids"
      raise DataError(conventions.KIND, f"{message}: take {self.MASKS}")
    return dithered(mask) if self.builder_config.name == "dithered" else thresholded(mask)


def list_whole(raw: pathlib.Path) -> dict[str, list[common.Item]]:
  """The official tree by its lists of ids, or without them by `hold_out`."""
  images, masks = common.part(raw, "images"), common.part(raw, "masks")
  files = {split: common.part(raw, f"{split}.txt") for split in common.SPLITS}
  if any(path.is_file() for path in files.values()):
    names = {split: common.read_ids(path) for split, path in files.items()}
  else:
    names = hold_out([image.stem for image in common.list_files(images, "*.jpg")])
  item = lambda name: common.Item(name, images / f"{name}.jpg", masks / f"{name}.jpg")
  return {split: [item(name) for name in names[split]] for split in common.SPLITS}


def hold_out(names: list[str]) -> dict[str, list[str]]:
  """train and val, each in the order of `names`: val are the 12% with the smallest SHA-256.

  So it depends on the names alone, not on their order or on a random generator.
  """
  digest = lambda name: hashlib.sha256(name.encode()).digest()
  val = set(sorted(names, key=digest)[: max(1, round(_HELD_OUT * len(names)))])
  return {
    "train": [name for name in names if name not in val],
    "val": [name for name in names if name in val],
  }


def dithered(mask: Image.Image) -> Image.Image:
  """Classes by Pillow's mode 1, whose error diffusion speckles the grey edges of JPEG masks."""
  return Image.fromarray(np.asarray(mask.convert("1")).astype(np.uint8))


def thresholded(mask: Image.Image) -> Image.Image:
  return Image.fromarray((np.asarray(mask.convert("L")) >= _THRESHOLD).astype(np.uint8))
