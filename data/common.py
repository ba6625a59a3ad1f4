"""What the dataset builders share: the stored form of a record, and the index that describes it.

Images and labels are stored as encoded bytes, labels as single-channel PNGs of train ids with
IGNORE; metadata.json beside the records holds class names, palette, and for every split its ids,
which of them have a mask, the sizes that occur, and pixels per class of each record.
"""

import io
import pathlib

import cv2
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from semiseg_jax.labels import IGNORE

SPLITS = ("train", "val")
Example = tuple[str, dict[str, bytes | str]]


def dataset_info(
  builder: tfds.core.DatasetBuilder,
  class_names: tuple[str, ...],
  palette: np.ndarray,
  **texts: str,
) -> tfds.core.DatasetInfo:
  """What a builder's `_info` returns; texts: description, homepage, citation, license."""
  empty = lambda: {"ids": [], "labeled": [], "sizes": [], "counts": []}
  return tfds.core.DatasetInfo(
    builder=builder,
    features=tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
        "id": tfds.features.Text(),
      }
    ),
    disable_shuffling=True,  # row i of a split is the i-th of its listing
    metadata=tfds.core.MetadataDict(
      class_names=list(class_names),
      palette=np.asarray(palette).tolist(),
      splits={split: empty() for split in SPLITS},
    ),
    **texts,
  )


def example(
  builder: tfds.core.DatasetBuilder, split: str, name: str, image: bytes, label: np.ndarray
) -> Example:
  """One record to yield, entered into the index. label: uint8 [H,W] of train ids and IGNORE."""
  metadata = builder.info.metadata
  index, num_classes = metadata["splits"][split], len(metadata["class_names"])
  counts = np.bincount(label[label != IGNORE], minlength=num_classes)
  if len(counts) > num_classes:
    raise ValueError(f"{name}: label id {len(counts) - 1} of {num_classes} classes")
  index["ids"].append(name)
  index["labeled"].append(True)
  index["counts"].append(counts.tolist())
  if list(label.shape) not in index["sizes"]:
    index["sizes"].append(list(label.shape))
  return name, {"image": image, "label": encode_png(label), "id": name}


def encode_png(array: np.ndarray) -> bytes:
  """uint8 [H,W] or RGB [H,W,3] as PNG."""
  ok, png = cv2.imencode(".png", array if array.ndim == 2 else array[..., ::-1])
  assert ok, "OpenCV encodes every uint8 array"
  return png.tobytes()


def read_image(path: pathlib.Path) -> tuple[bytes, Image.Image]:
  """The file's bytes and its decoded RGB image. Raises ValueError naming a damaged file."""
  encoded = path.read_bytes()
  return encoded, _decode(encoded, path).convert("RGB")


def read_mask(path: pathlib.Path) -> Image.Image:
  """A mask's decoded ids, as a Pillow image. Raises ValueError naming a damaged file."""
  mask = _decode(path.read_bytes(), path)
  if mask.mode not in ("L", "P"):
    raise ValueError(f"{path}: a mask of mode {mask.mode}, not one 8-bit id per pixel")
  return mask


def _decode(encoded: bytes, path: pathlib.Path) -> Image.Image:
  try:
    image = Image.open(io.BytesIO(encoded))
    image.load()
  except (OSError, SyntaxError, ValueError) as error:
    raise ValueError(f"{path}: damaged or truncated image ({error})") from error
  return image
