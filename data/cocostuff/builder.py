"""COCO-Stuff: things and stuff of COCO's photographs, 182 class ids; 164k and 10k images."""

import io
import pathlib
from types import MappingProxyType

import numpy as np
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from data import common
from semiseg_jax.input.decode import DataError
from semiseg_jax.labels import IGNORE

CLASS_NAMES = tuple((pathlib.Path(__file__).parent / "classes.txt").read_text().splitlines())
_CYCLE = (  # the original draws the classes in ten colours, over and over
  (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
  (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
)  # fmt: skip
_NEVER = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)  # ids of the 182 that no mask has
IDS = tuple(sorted(set(range(182)) - set(_NEVER)))
_SQUARE = (513, 513)
_COUNTS = {
  "164k": {"train": 118_287, "val": 5_000},
  "10k": {"train": 9_000, "val": 1_000},
  "10k_513": {"train": 9_000, "val": 1_000},
}


class Builder(common.FileBuilder):
  """Variants: 164k (2017's images, masks as PNG), 10k (masks as .mat), 10k_513 (all 513x513)."""

  name = "semiseg_cocostuff"
  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = (
    tfds.core.BuilderConfig(name="164k", description="train2017 and val2017, byte for byte"),
    tfds.core.BuilderConfig(name="10k", description="COCO-Stuff 10k, byte for byte"),
    tfds.core.BuilderConfig(
      name="10k_513", description="COCO-Stuff 10k, resized to 513x513 (pytorch-segmentation)"
    ),
  )
  CLASS_NAMES = CLASS_NAMES
  PALETTE = np.resize(np.asarray(_CYCLE, np.uint8), (len(CLASS_NAMES), 3))
  CLASS_OF_ID = common.class_of_id(range(182), ignored=[IGNORE])
  CLASS_OF_ID[list(_NEVER)] = -1
  OTHER_IDS = MappingProxyType(
    {
      "ids that count from 1": range(183),
      "train ids (0 to 170, and 255)": {*range(171), IGNORE},
      "the ids of COCO's stuff task": {0, *range(92, 184)},
    }
  )
  WITHOUT_IDS = MappingProxyType({"masks of things alone": set(range(91, 182))})
  MASKS = "stuffthingmaps_trainval2017.zip, or cocostuff-10k-v1.1.zip's .mat files, as they are"
  HOMEPAGE = "https://github.com/nightrome/cocostuff"
  LICENSE = "annotations: CC BY 4.0; images: Flickr's terms of use"

  @property
  def NUM_IMAGES(self) -> dict[str, int]:
    return _COUNTS[self.builder_config.name]

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    if self.builder_config.name == "164k":
      images, masks = common.part(raw, "images"), common.part(raw, "annotations")
      return {
        split: common.pairs(images / f"{split}2017", masks / f"{split}2017", "*.jpg", ".png")
        for split in common.SPLITS
      }
    return {"train": _list_10k(raw, "train"), "val": _list_10k(raw, "test")}

  def read_mask(self, path: pathlib.Path) -> Image.Image:
    return read_mat(path) if path.suffix == ".mat" else common.read_mask(path)

  def resize(self, image: Image.Image) -> Image.Image:
    if self.builder_config.name != "10k_513":
      return image
    return image.resize(_SQUARE, Image.Resampling.BILINEAR)


def read_mat(path: pathlib.Path) -> Image.Image:
  """Class ids of a mask of COCO-Stuff 10k: its field S less one, so that 0 becomes IGNORE."""
  try:
    stored = scipy.io.loadmat(io.BytesIO(path.read_bytes()))["S"].astype(np.int64)
  except Exception as error:  # whatever a damaged file makes the reader raise
    raise DataError("damaged file", f"{path}: not a readable mask ({error})") from error
  if stored.ndim != 2 or stored.min() < 0 or stored.max() > 182:
    raise DataError("label range", f"{path}: S should be a map of 0..182, not {stored.shape}")
  return Image.fromarray((stored - 1).astype(np.uint8))


def _list_10k(raw: pathlib.Path, name: str) -> list[common.Item]:
  ids = common.read_ids(common.part(raw, "imageLists") / f"{name}.txt")
  images, masks = common.part(raw, "images"), common.part(raw, "annotations")
  return [common.Item(i, images / f"{i}.jpg", masks / f"{i}.mat") for i in ids]
