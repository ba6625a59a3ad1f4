"""CamVid: 701 street scenes out of a driving car, in SegNet's 11 classes and splits."""

import pathlib
from types import MappingProxyType

import tensorflow_datasets as tfds
from PIL import Image

from data import common
from semiseg_jax.labels import IGNORE

CLASS_NAMES, PALETTE = common.read_classes("camvid")
CLASS_OF_ID = common.class_of_id(range(11), ignored=[11])
ID_OF_COLOR = {  # of the original release: colour -> id in SegNet's files
  tuple(map(int, color.split())): (*CLASS_NAMES, "void").index(name)
  for _, color, name in common.read_table(pathlib.Path(__file__).parent / "release.tsv")
}
_STILLS, _LABELS = "701_StillsRaw_full", "LabeledApproved_full"


class Builder(common.FileBuilder):
  """Images byte for byte, sorted by name; the test split is prepared if it is there."""

  name = "semiseg_camvid"
  VERSION = tfds.core.Version("1.0.0")
  CLASS_NAMES, PALETTE, CLASS_OF_ID = CLASS_NAMES, PALETTE, CLASS_OF_ID
  OTHER_IDS = MappingProxyType(
    {
      "SegNet's ids with 255 for 11, void": {*range(11), IGNORE},
      "ids of all 32 classes": range(32),
    }
  )
  MASKS = "SegNet's masks, of ids 0 to 11, or the original release's in colours"
  NUM_IMAGES = MappingProxyType({"train": 367, "val": 101, "test": 233})
  HOMEPAGE = "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    if common.part(raw, _STILLS).is_dir():
      return list_release(raw)
    splits = [*common.SPLITS, *(["test"] if common.part(raw, "test").is_dir() else [])]
    return {
      split: common.pairs(
        common.part(raw, split), common.part(raw, f"{split}annot"), "*.[jp][pn]g", ".png"
      )
      for split in splits
    }

  def read_mask(self, path: pathlib.Path) -> Image.Image:
    if path.parent.name != _LABELS:
      return common.read_mask(path)
    return common.ids_of_colors(common.decode(path.read_bytes(), path), ID_OF_COLOR, path)


def list_release(raw: pathlib.Path) -> dict[str, list[common.Item]]:
  """The original release in SegNet's splits: train and val are listed here, test is the rest."""
  names = {split: frames(split) for split in common.SPLITS}
  listed = {name for split in names.values() for name in split}
  stills, labels = common.part(raw, _STILLS), common.part(raw, _LABELS)
  names["test"] = [
    path.stem for path in common.list_files(stills, "*.png") if path.stem not in listed
  ]
  item = lambda name: common.Item(name, stills / f"{name}.png", labels / f"{name}_L.png")
  return {split: [item(name) for name in names[split]] for split in names}


def frames(split: str) -> list[str]:
  """SegNet's training or validation frames, sorted."""
  return common.read_ids(pathlib.Path(__file__).parent / f"{split}.txt")
