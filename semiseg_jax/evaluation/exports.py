"""Label maps as files: our own, and those that benchmarks' servers take."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from semiseg_jax.evaluation.pictures import write_palette_png
from semiseg_jax.fields import require
from semiseg_jax.input.palettes import voc_palette

FORMATS = ("palette", "cityscapes", "voc")
CITYSCAPES_IDS = {  # of the classes that are scored, from the published scripts
  "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17,
  "traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23,
  "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31, "motorcycle": 32,
  "bicycle": 33,
}  # fmt: skip
VOC_CLASSES = (
  "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
  "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
  "train", "tvmonitor",
)  # fmt: skip

Writer = Callable[[pathlib.Path, np.ndarray], None]  # of a label map uint8 [H,W]


def label_writer(form: str, class_names: Sequence[str], palette: np.ndarray) -> Writer:
  """palette: class ids, shown in the dataset's colours. cityscapes: grey, the ids of Cityscapes'
  labelIds. voc: class ids, shown in VOC's 256 colours.

  Raises ValueError for another format, and for classes that a server doesn't know.
  """
  require("--format", form, FORMATS)
  if form == "palette":
    return lambda path, label: write_palette_png(path, label, palette)
  if form == "voc":
    if tuple(class_names) != VOC_CLASSES:
      raise ValueError(f"--format=voc is for VOC's 21 classes, not {', '.join(class_names)}")
    return write_voc
  if unknown := [name for name in class_names if name not in CITYSCAPES_IDS]:
    raise ValueError(f"--format=cityscapes: Cityscapes scores no class {', '.join(unknown)}")
  ids = np.uint8([CITYSCAPES_IDS[name] for name in class_names])
  return lambda path, label: Image.fromarray(ids[label]).save(path)


def write_voc(path: pathlib.Path, label: np.ndarray) -> None:
  """As the annotations of VOC, which its server takes."""
  picture = Image.fromarray(np.ascontiguousarray(label), mode="P")
  picture.putpalette(voc_palette().tobytes())
  picture.save(path)
