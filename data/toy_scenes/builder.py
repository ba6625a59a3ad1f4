"""Toy street scenes: 400 training and 100 validation images of 96x128, made by code in seconds."""

from types import MappingProxyType

import numpy as np
import tensorflow_datasets as tfds

from data import common
from data.toy_scenes import street


class Builder(tfds.core.GeneratorBasedBuilder):
  """Ten classes of very unequal frequency under changing light; needs no download."""

  name = "semiseg_toy_scenes"
  VERSION = tfds.core.Version("1.0.0")
  CLASS_NAMES, PALETTE = common.read_classes("toy_scenes")
  NUM_IMAGES = MappingProxyType({"train": 400, "val": 100})

  def _info(self) -> tfds.core.DatasetInfo:
    return common.dataset_info(self)

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(split, n) for split, n in self.NUM_IMAGES.items()}

  def _generate_examples(self, split: str, count: int):
    for number in range(count):
      # a stream of its own for every image, so that changing the counts changes no image
      rng = np.random.default_rng([common.SPLITS.index(split), number])
      image, label = street.make_scene(rng)
      yield common.example(self, split, f"{split}_{number:04d}", common.encode_png(image), label)
