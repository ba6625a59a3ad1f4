"""Cityscapes, fine annotations: 2975 training and 500 validation street scenes, 19 classes."""

import pathlib
from collections.abc import Iterator

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
_HALF = (1024, 512)  # width, height


def train_ids() -> np.ndarray:
  """uint8 [256]: id in the files -> class, IGNORE for every other id."""
  table = np.full(256, IGNORE, np.uint8)
  for class_id, (_, file_id, _) in enumerate(_CLASSES):
    table[file_id] = class_id
  return table


class Builder(tfds.core.GeneratorBasedBuilder):
  """Variants: full (2048x1024, the files' own bytes) and half (1024x512, as ReCo trains on)."""

  name = "semiseg_cityscapes"
  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = (
    tfds.core.BuilderConfig(name="half", description="1024x512: bicubic images, nearest labels"),
    tfds.core.BuilderConfig(name="full", description="2048x1024, images byte for byte"),
  )
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Cityscapes may not be redistributed. Register at https://www.cityscapes-dataset.com, download
  leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB),
and unpack both into one directory RAW, so that it holds
  RAW/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png
  RAW/gtFine/{train,val}/CITY/*_gtFine_labelIds.png
"""

  def _info(self) -> tfds.core.DatasetInfo:
    return common.dataset_info(
      self,
      CLASS_NAMES,
      PALETTE,
      description=__doc__,
      homepage="https://www.cityscapes-dataset.com",
      license="https://www.cityscapes-dataset.com/license/",
    )

  def _split_generators(self, dl_manager):
    raw = pathlib.Path(dl_manager.manual_dir)
    pairs = {split: list_pairs(raw, split) for split in common.SPLITS}  # both, before any is read
    return {split: self._generate_examples(split, pairs[split]) for split in pairs}

  def _generate_examples(self, split, pairs) -> Iterator[common.Example]:
    for name, image_path, mask_path in pairs:
      yield common.example(self, split, name, *self._read(image_path, mask_path))

  def _read(self, image_path: pathlib.Path, mask_path: pathlib.Path) -> tuple[bytes, np.ndarray]:
    encoded, image = common.read_image(image_path)
    mask = common.read_mask(mask_path)
    if image.size != mask.size:
      raise ValueError(
        f"image and mask differ in size (width, height): {image.size} in {image_path}, "
        f"{mask.size} in {mask_path}"
      )
    if self.builder_config.name == "half":
      encoded = common.encode_png(np.asarray(image.resize(_HALF, Image.Resampling.BICUBIC)))
      mask = mask.resize(_HALF, Image.Resampling.NEAREST)
    return encoded, train_ids()[np.asarray(mask)]


def list_pairs(raw: pathlib.Path, split: str) -> list[tuple[str, pathlib.Path, pathlib.Path]]:
  """(id, image, mask) sorted by city, then by name.

  Raises FileNotFoundError if there are no images, or naming the first mask that is missing.
  """
  images = raw / "leftImg8bit" / split
  found = sorted(images.glob("*/*_leftImg8bit.png"), key=lambda path: (path.parent.name, path.name))
  if not found:
    raise FileNotFoundError(f"no image matches {images}/CITY/*_leftImg8bit.png")
  pairs = []
  for image in found:
    name = image.name.removesuffix("_leftImg8bit.png")
    mask = raw / "gtFine" / split / image.parent.name / f"{name}_gtFine_labelIds.png"
    if not mask.is_file():
      raise FileNotFoundError(f"{mask} is missing; it is the mask of {image}")
    pairs.append((name, image, mask))
  return pairs
