"""Encoded bytes -> arrays, with errors that name the file."""

import io

import cv2
import numpy as np
from PIL import Image

cv2.setNumThreads(0)  # reader threads and worker processes are the parallelism
# Cameras' rotation tags are not applied: masks were drawn on the stored pixels.
_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


class DataError(ValueError):
  """Data on disk that cannot be used; `kind` groups the messages of a scan."""

  def __init__(self, kind: str, message: str):
    super().__init__(message)
    self.kind = kind

  def __reduce__(self):
    return DataError, (self.kind, str(self))


def decode_image(encoded: bytes, where: str) -> np.ndarray:
  """Any 8-bit image file -> RGB uint8 [H,W,3]. `where` names it in the error."""
  try:
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), _RGB)
  except cv2.error:
    image = None
  if image is None:
    raise DataError("undecodable", f"{where}: the image does not decode ({len(encoded)} bytes)")
  return image


def decode_label(encoded: bytes, where: str) -> np.ndarray:
  """A single-channel or palette image file -> its stored ids, uint8 [H,W].

  Pillow, because it keeps the indices of a palette where OpenCV would turn them into colours.
  """
  try:
    with Image.open(io.BytesIO(encoded)) as file:
      label = np.asarray(file)
  except (OSError, SyntaxError, ValueError) as error:
    raise DataError("undecodable", f"{where}: the mask does not decode ({error})") from error
  return check_label(label, where)


def check_label(label: np.ndarray, where: str) -> np.ndarray:
  """uint8 [H,W] of a mask's values; DataError if they are no ids, one per pixel."""
  if label.ndim != 2 or label.dtype.kind not in "bui":
    raise DataError(
      "mask format",
      f"{where}: the mask has shape {label.shape} and type {label.dtype}; store one class id per "
      "pixel, not colours",
    )
  if label.dtype != np.uint8:
    outside = label[(label < 0) | (label > 255)] if label.dtype != bool else label[:0]
    if outside.size:
      raise DataError("label range", f"{where}: label id {outside[0]} does not fit 0..255")
    label = label.astype(np.uint8)
  return label


def check_sizes(image: np.ndarray, label: np.ndarray, image_name: str, label_name: str) -> None:
  """Raises DataError unless the label has a value for every pixel of the image."""
  if image.shape[:2] != label.shape:
    raise DataError(
      "size mismatch",
      f"image and mask differ in size (height x width): {image.shape[0]}x{image.shape[1]} in "
      f"{image_name}, {label.shape[0]}x{label.shape[1]} in {label_name}",
    )
