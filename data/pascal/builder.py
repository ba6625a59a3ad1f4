"""Pascal VOC 2012 with SBD's annotations ("train_aug"): 10,582 training, 1449 validation images."""

import pathlib
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from data import common, conventions, published
from semiseg_jax.input.decode import DataError
from semiseg_jax.labels import IGNORE

CLASS_NAMES, PALETTE = common.read_classes("pascal")
CLASS_OF_ID = common.class_of_id(range(21), ignored=[IGNORE])


class Builder(common.FileBuilder):
  """Images byte for byte, in the sorted order of the published lists."""

  name = "semiseg_pascal"
  VERSION = tfds.core.Version("1.0.0")
  CLASS_NAMES, PALETTE, CLASS_OF_ID = CLASS_NAMES, PALETTE, CLASS_OF_ID
  OTHER_IDS = MappingProxyType({"the classes of Pascal Context": range(60)})
  MASKS = "VOC's own palette PNGs, SegmentationClassAug or SBD's .mat files as they are"
  NUM_IMAGES = MappingProxyType({"train": 10582, "val": 1449})
  HOMEPAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
  LICENSE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/#rights"

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    images, candidates = find_root(raw) / "JPEGImages", mask_candidates(raw)

    def item(name: str, candidates: list[tuple[pathlib.Path, str]]) -> common.Item:
      mask = first_file([folder / f"{name}{suffix}" for folder, suffix in candidates])
      return common.Item(name, images / f"{name}.jpg", mask)

    return {
      "train": [item(name, candidates) for name in listing("train")],
      "val": [item(name, candidates[:1]) for name in listing("val")],  # never scored against SBD's
    }

  def read_mask(self, path: pathlib.Path) -> Image.Image:
    if path.suffix == ".mat":
      return read_sbd(path)
    mask = common.read_mask(path)
    if mask.mode == "P":
      conventions.check_palette(mask, path, self.CLASS_OF_ID, self.PALETTE, self.MASKS)
    return mask

  def check_split(self, split: str, counts: np.ndarray, skipped: Sequence[tuple[str, str]]) -> None:
    super().check_split(split, counts, skipped)
    conventions.check_objects(split, counts, self.MASKS)  # SegmentationObject in place of Class

  def own_lists(self, raw: pathlib.Path, split: str, ids: list[str]) -> dict[str, list[str]]:
    own = find_root(raw) / "ImageSets" / "Segmentation" / "train.txt"
    if split != "train" or not own.is_file():
      return {}
    members = set(common.read_ids(own))
    return {"voc/train": [name for name in ids if name in members]}


def listing(split: str) -> list[str]:
  """The ids of train (train_aug) or val, sorted as published."""
  return published.listing("pascal", split)


def find_root(raw: pathlib.Path) -> pathlib.Path:
  """The folder that holds JPEGImages. Raises FileNotFoundError."""
  parts = ("JPEGImages", "VOC2012/JPEGImages", "VOCdevkit/VOC2012/JPEGImages")
  for images in (common.part(raw, path) for path in parts):
    if images.is_dir():
      return images.parent
  raise FileNotFoundError(f"none of {', '.join(parts)} is in {raw}")


def mask_candidates(raw: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
  """Where a mask may lie (folder, suffix), the first to be preferred.

  VOC's own annotation comes before SBD's, as in SegmentationClassAug, which was made by copying the
  one over the other. Raises FileNotFoundError if most training images would have none.
  """
  root = find_root(raw)
  for folder in (root / "SegmentationClassAug", common.part(raw, "SegmentationClassAug")):
    if folder.is_dir():
      return [(folder, ".png")]
  if (boundaries := common.part(raw, "dataset/cls")).is_dir():
    return [(root / "SegmentationClass", ".png"), (boundaries, ".mat")]
  raise FileNotFoundError(
    f"the annotations of SBD are missing: neither {root}/SegmentationClassAug nor a folder "
    f"dataset/cls (of benchmark_RELEASE) is in {raw}"
  )


def first_file(paths: list[pathlib.Path]) -> pathlib.Path:
  """The first that exists, else the last, for the message that it is missing."""
  return next((path for path in paths if path.is_file()), paths[-1])


def read_sbd(path: pathlib.Path) -> Image.Image:
  """The class ids of an SBD file. Raises DataError naming a damaged one."""
  try:
    ids = scipy.io.loadmat(path)["GTcls"]["Segmentation"][0, 0]
  except Exception as error:  # of many kinds, depending on where the file breaks off
    raise DataError("damaged file", f"{path}: damaged or not of SBD ({error})") from error
  return Image.fromarray(np.asarray(ids, np.uint8))
