"""Encoded bytes -> arrays, with errors that name the file.

Pictures are turned as their rotation tag (EXIF) says, as viewers and annotation tools show them; so
masks have to lie, and so predictions and overlays lie.
"""

import io
import logging
import struct
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from semiseg_jax.input import headers
from semiseg_jax.input.levels import to_levels
from semiseg_jax.input.palettes import renumbered

cv2.setNumThreads(0)  # reader threads and worker processes are the parallelism
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # an error says it in a line
MOST_PIXELS = 2**30  # OpenCV's own limit; the one of Pillow would refuse aerial photographs
Image.MAX_IMAGE_PIXELS = None
_UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error)
_SWAPPED = (
  "; the sides are swapped: an image with a rotation tag is turned as viewers show it, so turn the "
  "mask, or remove the tag"
)
_CHANGING = {  # formats of files that do not keep a mask's ids
  **dict.fromkeys(("JPEG", "MPO", "WEBP"), "whose compression changes class ids"),
  "GIF": "whose colours programs renumber in every file",
}
_SAY_IT = "save 8 bits, or a TIFF whose MaxSampleValue says what is white"
_warned: set[str] = set()


class DataError(ValueError):
  """Data on disk that cannot be used; `kind` groups the messages of a scan."""

  def __init__(self, kind: str, message: str):
    super().__init__(message)
    self.kind = kind

  def __reduce__(self):
    return DataError, (self.kind, str(self))


def decode_image(encoded: bytes, where: str, *, turned: bool = True) -> np.ndarray:
  """Any image file -> RGB uint8 [H,W,3], of several pictures the first.

  where: names it in errors and warnings. turned: as its rotation tag says; without, the pixels as
  stored. Deeper numbers become 8 bits by `to_levels`. DataError for what does not decode, has more
  than MOST_PIXELS or levels that are none.
  """
  try:
    numbers = headers.numbers(encoded)
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), _flags(encoded, numbers, turned))
  except (cv2.error, *_UNREADABLE):
    image = None
  if image is None:
    read_size(io.BytesIO(encoded), where)  # says more of a picture that is too large
    raise _undecodable(where, len(encoded))
  if headers.has_more(encoded):
    _warn_once("several", f"{where} holds several pictures: of such files the first is taken")
  if turned and "turned" not in _warned and headers.is_turned(encoded):
    message = "pictures with a rotation tag are turned as viewers show them, so have masks to lie"
    _warn_once("turned", f"{where}: {message}")
  return _in_eight_bits(image, numbers, where) if numbers.deep else image


def read_size(file: BinaryIO, where: str) -> tuple[int, int]:
  """(height, width) as shown, out of the header alone. DataError for what is no picture, or one of
  more than MOST_PIXELS."""
  try:
    height, width = headers.size(file)
  except _UNREADABLE as error:
    raise _undecodable(where, file.seek(0, io.SEEK_END)) from error
  check_pixels(height, width, where)
  return height, width


def check_pixels(height: int, width: int, where: str) -> None:
  """Raises DataError for a picture of more than MOST_PIXELS."""
  if height * width > MOST_PIXELS:
    raise DataError(
      "too large",
      f"{where}: {height}x{width} pixels are more than {MOST_PIXELS:,}, the most that is read",
    )


def decode_label(encoded: bytes, where: str) -> np.ndarray:
  """A single-channel or palette image file -> its stored ids, uint8 [H,W].

  Raises DataError as `decode_mask`, and where they are no ids or not those that were meant.
  """
  mask = decode_mask(encoded, where)
  label = check_label(mask.pixels, where)
  check_palette(mask, where)
  return label


class Mask(NamedTuple):
  """What a mask file stores: numbers [H,W] or colours [H,W,C], and of ids in a palette file the
  colours uint8 [n,3] that they are shown in."""

  pixels: np.ndarray
  palette: np.ndarray | None = None


def decode_mask(encoded: bytes, where: str) -> Mask:
  """A mask file as it is stored; DataError for one that does not decode or keeps no ids.

  Pillow, because it keeps the indices of a palette where OpenCV would turn them into colours.
  """
  try:
    with Image.open(io.BytesIO(encoded)) as file:
      check_pixels(file.height, file.width, where)
      return mask_of(file, where)
  except DataError:
    raise
  except (OSError, SyntaxError, ValueError) as error:
    raise DataError("undecodable", f"{where}: the mask does not decode ({error})") from error


def mask_of(image: Image.Image, where: str) -> Mask:
  """The same of one of Pillow's images, turned as its rotation tag says."""
  if (form := image.format) in _CHANGING or image.info.get("compression") == "jpeg":
    why = _CHANGING.get(form, _CHANGING["JPEG"])
    raise DataError("mask format", f"{where}: the mask is a {form}, {why}: save it as PNG")
  shown = ImageOps.exif_transpose(image)
  palette = None
  if image.mode == "P":
    palette = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
  return Mask(np.asarray(shown), palette)


def check_palette(mask: Mask, where: str) -> None:
  """DataError where a mask's palette tells that its ids are not those that were meant."""
  if mask.palette is not None and (complaint := renumbered(mask.pixels, mask.palette)):
    raise DataError("mask palette", f"{where}: {complaint}")


def check_label(label: np.ndarray, where: str) -> np.ndarray:
  """uint8 [H,W] of a mask's values; DataError if they are no ids, one per pixel."""
  if label.dtype.kind == "f":
    raise DataError("mask format", f"{where}: the mask has type {label.dtype}, {_strangest(label)}")
  if label.ndim != 2 or label.dtype.kind not in "bui":
    raise DataError(
      "mask format",
      f"{where}: the mask has shape {label.shape} and type {label.dtype}; store one class id per "
      "pixel, not colours (or, in a folder, say in dataset.toml whose they are: palette)",
    )
  if label.dtype != np.uint8:
    outside = label[(label < 0) | (label > 255)] if label.dtype != bool else label[:0]
    if outside.size:
      raise DataError("label range", f"{where}: label id {outside[0]} does not fit 0..255")
    label = label.astype(np.uint8)
  return label


def _strangest(numbers: np.ndarray) -> str:
  """What floats are that should be ids, and what to do about it."""
  whole = numbers == np.rint(numbers)  # not so of NaN
  found = f"such as {numbers[~whole][0]:.6g}" if not whole.all() else "though all of them are whole"
  return f"{found}: class ids are whole numbers, so save them as 8-bit integers"


def check_sizes(image: np.ndarray, label: np.ndarray, image_name: str, label_name: str) -> None:
  """Raises DataError unless the label has a value for every pixel of the image."""
  if image.shape[:2] != label.shape:
    swapped = image.shape[1::-1] == label.shape
    raise DataError(
      "size mismatch",
      f"image and mask differ in size (height x width): {image.shape[0]}x{image.shape[1]} in "
      f"{image_name}, {label.shape[0]}x{label.shape[1]} in {label_name}"
      + (_SWAPPED if swapped else ""),
    )


def _flags(encoded: bytes, numbers: headers.Numbers, turned: bool) -> int:
  if encoded[:4] in headers.TIFF and numbers.deep:
    return cv2.IMREAD_UNCHANGED  # or floats of one channel do not decode; TIFFs are turned anyway
  flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH if numbers.deep else cv2.IMREAD_COLOR_RGB
  return flags if turned else flags | cv2.IMREAD_IGNORE_ORIENTATION


def _in_eight_bits(image: np.ndarray, numbers: headers.Numbers, where: str) -> np.ndarray:
  """Deep numbers of a grey image [H,W], or [H,W,3 or 4] in OpenCV's order of colours."""
  if image.ndim == 3 and image.shape[-1] not in (3, 4):
    raise DataError("channels", f"{where}: {image.shape[-1]} channels are neither grey nor RGB")
  colors = image[..., 2::-1] if image.ndim == 3 else image
  try:
    levels, assumed = to_levels(colors, numbers.white, numbers.bits)
  except ValueError as error:
    raise DataError("levels", f"{where}: {error}; save it with 8 bits") from error
  if assumed:
    _warn_once(assumed.partition("taken")[2], f"{where}: {assumed}; if they are not, {_SAY_IT}")
  if numbers.inverted:  # by libtiff where there are 8 bits
    levels = 255 - levels
  return levels if image.ndim == 3 else levels[..., None].repeat(3, -1)


def _undecodable(where: str, size: int) -> DataError:
  return DataError("undecodable", f"{where}: the image does not decode ({size} bytes)")


def _warn_once(kind: str, message: str) -> None:
  """In this process; the first file stands for all of its kind."""
  if kind not in _warned:
    _warned.add(kind)
    logging.getLogger(__name__).warning(message)
