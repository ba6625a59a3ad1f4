"""CamVid: 701 street scenes out of a driving car, in SegNet's 11 classes and splits."""

import pathlib
from types import MappingProxyType

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from data import common
from semiseg_jax.labels import IGNORE

_CLASSES = (  # class = id in SegNet's files, colour there, colours of the original release
  ("sky", (128, 128, 128), {"Sky": (128, 128, 128)}),
  (
    "building",
    (128, 0, 0),
    {
      "Building": (128, 0, 0),
      "Bridge": (0, 128, 64),
      "Wall": (64, 192, 0),
      "Tunnel": (64, 0, 64),
      "Archway": (192, 0, 128),
    },
  ),
  ("pole", (192, 192, 128), {"Column_Pole": (192, 192, 128), "TrafficCone": (0, 0, 64)}),
  (
    "road",
    (128, 64, 128),
    {"Road": (128, 64, 128), "LaneMkgsDriv": (128, 0, 192), "LaneMkgsNonDriv": (192, 0, 64)},
  ),
  (
    "pavement",
    (60, 40, 222),
    {"Sidewalk": (0, 0, 192), "ParkingBlock": (64, 192, 128), "RoadShoulder": (128, 128, 192)},
  ),
  ("tree", (128, 128, 0), {"Tree": (128, 128, 0), "VegetationMisc": (192, 192, 0)}),
  (
    "sign symbol",
    (192, 128, 128),
    {"SignSymbol": (192, 128, 128), "Misc_Text": (128, 128, 64), "TrafficLight": (0, 64, 64)},
  ),
  ("fence", (64, 64, 128), {"Fence": (64, 64, 128)}),
  (
    "car",
    (64, 0, 128),
    {
      "Car": (64, 0, 128),
      "SUVPickupTruck": (64, 128, 192),
      "Truck_Bus": (192, 128, 192),
      "Train": (192, 64, 128),
      "OtherMoving": (128, 64, 64),
    },
  ),
  (
    "pedestrian",
    (64, 64, 0),
    {
      "Pedestrian": (64, 64, 0),
      "Child": (192, 128, 64),
      "CartLuggagePram": (64, 0, 192),
      "Animal": (64, 128, 64),
    },
  ),
  (
    "bicyclist",
    (0, 128, 192),
    {"Bicyclist": (0, 128, 192), "MotorcycleScooter": (192, 0, 192)},
  ),
)
_VOID = len(_CLASSES)
CLASS_NAMES = tuple(name for name, _, _ in _CLASSES)
PALETTE = np.asarray([color for _, color, _ in _CLASSES], np.uint8)
CLASS_OF_ID = common.class_of_id({**{i: i for i in range(_VOID)}, _VOID: IGNORE})
ID_OF_COLOR = MappingProxyType(
  {
    (0, 0, 0): _VOID,
    **{color: i for i, (_, _, members) in enumerate(_CLASSES) for color in members.values()},
  }
)
_STILLS, _LABELS = "701_StillsRaw_full", "LabeledApproved_full"


class Builder(common.FileBuilder):
  """Images byte for byte, sorted by name; the test split is prepared if it is there."""

  name = "semiseg_camvid"
  VERSION = tfds.core.Version("1.0.0")
  CLASS_NAMES, PALETTE, CLASS_OF_ID = CLASS_NAMES, PALETTE, CLASS_OF_ID
  NUM_IMAGES = MappingProxyType({"train": 367, "val": 101, "test": 233})
  HOMEPAGE = "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"

  def list_items(self, raw: pathlib.Path) -> dict[str, list[common.Item]]:
    if (raw / _STILLS).is_dir():
      return list_release(raw)
    splits = [*common.SPLITS, *(["test"] if (raw / "test").is_dir() else [])]
    return {split: list_segnet(raw, split) for split in splits}

  def read_mask(self, path: pathlib.Path) -> Image.Image:
    if path.parent.name != _LABELS:
      return common.read_mask(path)
    return common.ids_of_colors(common.decode(path.read_bytes(), path), ID_OF_COLOR, path)


def list_segnet(raw: pathlib.Path, split: str) -> list[common.Item]:
  """A split of SegNet's layout. Raises FileNotFoundError if it has no images."""
  images = common.list_files(raw / split, "*.[jp][pn]g")
  masks = raw / f"{split}annot"
  return [common.Item(image.stem, image, masks / f"{image.stem}.png") for image in images]


def list_release(raw: pathlib.Path) -> dict[str, list[common.Item]]:
  """The original release in SegNet's splits: train and val are listed here, test is the rest."""
  names = {split: frames(split) for split in common.SPLITS}
  listed = {name for split in names.values() for name in split}
  stills = common.list_files(raw / _STILLS, "*.png")
  names["test"] = [path.stem for path in stills if path.stem not in listed]
  item = lambda name: common.Item(
    name, raw / _STILLS / f"{name}.png", raw / _LABELS / f"{name}_L.png"
  )
  return {split: [item(name) for name in names[split]] for split in names}


def frames(split: str) -> list[str]:
  """SegNet's training or validation frames, sorted."""
  return common.read_ids(pathlib.Path(__file__).parent / f"{split}.txt")
