"""GTA5 (Playing for Data): 24,966 rendered street scenes with the 19 classes of Cityscapes."""

import io
import pathlib
from types import MappingProxyType

import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from data import common, conventions
from data.cityscapes import builder as cityscapes
from semiseg_jax.input.decode import DataError

HELD_OUT = 50  # without a split of its own, every so many-th image is for validation
_OTHER = (  # colours of the Cityscapes scheme that are no training class
  (0, 0, 0), (20, 20, 20), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140),
  (180, 165, 180), (150, 100, 100), (150, 120, 90), (0, 0, 90), (0, 0, 110),
)  # fmt: skip
# the labels' ids end at 34, the license plate, which is drawn in the colour of cars
CLASS_OF_ID = common.class_of_id(cityscapes.IDS, ignored=range(35))
ID_OF_COLOR = {color: 0 for color in _OTHER} | {
  tuple(color): label_id
  for label_id, color in zip(cityscapes.IDS, cityscapes.PALETTE.tolist(), strict=True)
}


class Builder(common.FileBuilder):
  """Variants: full (1914x1052, the files' own bytes), and half as the memory bank trains on it."""

  name = "semiseg_gta5"
  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = (
    tfds.core.BuilderConfig(name="half", description="957x526: bilinear images (memory bank)"),
    tfds.core.BuilderConfig(name="full", description="1914x1052, images byte for byte"),
  )
  CLASS_NAMES, PALETTE = cityscapes.CLASS_NAMES, cityscapes.PALETTE
  CLASS_OF_ID = CLASS_OF_ID
  OTHER_IDS = cityscapes.Builder.OTHER_IDS
  WITHOUT_IDS = cityscapes.Builder.WITHOUT_IDS
  MASKS = "the palette PNGs of the official labels as they are"
  NUM_IMAGES = MappingProxyType({})  # how the 24,966 are divided is not the same everywhere
  HOMEPAGE = "https://download.visinf.tu-darmstadt.de/data/from_games/"
  LICENSE = "see the homepage"

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    images, labels = common.part(raw, "images"), common.part(raw, "labels")
    if (images / "train").is_dir():
      return {
        split: common.pairs(images / split, labels / split, "*.png", ".png")
        for split in common.SPLITS
      }
    items = common.pairs(images, labels, "*.png", ".png")
    if (division := common.part(raw, "split.mat")).is_file():
      split_of = read_split(division)
    else:
      split_of = {i.name: "train" if row % HELD_OUT else "val" for row, i in enumerate(items)}
    listed: dict[str, list[common.Item]] = {}
    for item in items:
      listed.setdefault(split_of.get(item.name, "train"), []).append(item)
    if missing := set(common.SPLITS) - set(listed):
      raise FileNotFoundError(f"{images} has no image for the split {missing.pop()}")
    return listed

  def read_mask(self, path: pathlib.Path) -> Image.Image:
    """The official palette PNGs hold Cityscapes' label ids; others are drawn in its colours."""
    mask = common.decode(path.read_bytes(), path)
    if mask.mode == "P":
      conventions.check_palette(mask, path, self.CLASS_OF_ID, self.PALETTE, self.MASKS)
      return mask
    if mask.mode in ("RGB", "RGBA"):
      return common.ids_of_colors(mask, ID_OF_COLOR, path)
    message = (
      f"{path}: a mask of mode {mask.mode}; neither a palette of label ids nor colours. Another "
      "program has converted it: unpack the official labels anew"
    )
    raise DataError("mask format", message)

  def resize(self, image: Image.Image) -> Image.Image:
    if self.builder_config.name == "full":
      return image
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR)


def read_split(path: pathlib.Path) -> dict[str, str]:
  """Image id -> train, val or test, from the official split.mat. DataError if it is damaged."""
  try:
    content = scipy.io.loadmat(io.BytesIO(path.read_bytes()))
    ids = {split: content[f"{split}Ids"].ravel() for split in ("train", "val", "test")}
  except Exception as error:  # whatever a damaged file makes the reader raise
    message = f"{path}: no division into trainIds, valIds and testIds ({error})"
    raise DataError("damaged file", message) from error
  return {f"{int(number):05d}": split for split, numbers in ids.items() for number in numbers}
