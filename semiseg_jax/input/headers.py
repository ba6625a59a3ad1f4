"""What an image file says before its pixels: size, rotation, numbers, further pictures."""

import io
import struct
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_HEADER = 2**16  # bytes in which a tag is looked for
_ORIENTATION = 0x0112
_SWAPPING = (5, 6, 7, 8)  # orientations that make a lying picture stand
_PNG, TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _COLORS, _MAXIMUM, _FORMAT, _TYPED_MAXIMUM = 258, 262, 281, 339, 341  # tags of TIFF
_UNSIGNED = 1  # the format of numbers that a TIFF has unless it says otherwise


class Numbers(NamedTuple):
  """How samples are stored: deep where 8 unsigned bits do not hold them; white: the value of the
  brightest sample, as decoded, if the file says which; bits: of PNG's sBIT, how many of the 16
  matter; inverted: white is zero."""

  deep: bool
  white: float | None = None
  bits: int | None = None
  inverted: bool = False


def size(file: BinaryIO) -> tuple[int, int]:
  """(height, width), turned as the rotation tag says. Raises what Pillow raises for no picture."""
  if _start(file) in TIFF:
    tags = _tiff_tags(file)
    height, width, orientation = tags[257], tags[256], tags.get(_ORIENTATION)
  else:
    with Image.open(file) as picture:
      width, height = picture.size
      orientation = _orientation(picture)
  return (width, height) if orientation in _SWAPPING else (height, width)


def is_turned(encoded: bytes) -> bool:
  """Whether a rotation tag says that the picture is shown other than it is stored."""
  file = io.BytesIO(encoded)
  if encoded[:4] in TIFF:
    return _tiff_tags(file).get(_ORIENTATION) in range(2, 9)
  tagged = any(encoded.find(name, 0, _HEADER) > 0 for name in (b"Exif\0", b"eXIf"))
  if not tagged and encoded[:4] != b"RIFF":  # WebP has it at its end
    return False
  try:
    with Image.open(file) as picture:
      return _orientation(picture) in range(2, 9)
  except OSError:
    return False


def numbers(encoded: bytes) -> Numbers:
  """How the samples of an encoded picture are stored."""
  if encoded[:4] in TIFF:
    tags = _tiff_tags(io.BytesIO(encoded))
    greatest = lambda tag, default: float(np.max(tags.get(tag, default)))  # of all channels
    bits = greatest(_BITS, 1)
    white = greatest(_TYPED_MAXIMUM, 0) or greatest(_MAXIMUM, 0) or None
    if 8 < bits < 16:  # OpenCV unpacks them into the upper bits of 16
      white = 2**16 - 1
    deep = bits > 8 or greatest(_FORMAT, _UNSIGNED) != _UNSIGNED
    return Numbers(deep, white, inverted=tags.get(_COLORS) == 0)
  if encoded[:8] == _PNG and len(encoded) > 24 and encoded[24] == 16:
    chunk = encoded.find(b"sBIT", 0, encoded.find(b"IDAT"))
    if chunk < 0:
      return Numbers(True)
    (length,) = struct.unpack(">I", encoded[chunk - 4 : chunk])
    return Numbers(True, bits=max(encoded[chunk + 4 : chunk + 4 + length]))
  return Numbers(False)


def has_more(encoded: bytes) -> bool:
  """Whether the file holds further pictures: a TIFF of several pages, an animated PNG or WebP."""
  if encoded[:4] in TIFF:
    return bool(_tiff_tags(io.BytesIO(encoded)).next)
  if encoded[:8] == _PNG:
    return encoded.find(b"acTL", 0, encoded.find(b"IDAT")) > 0
  return encoded[:4] == b"RIFF" and encoded[12:16] == b"VP8X" and bool(encoded[20] & 2)


def _start(file: BinaryIO) -> bytes:
  start = file.read(4)
  file.seek(0)
  return start


def _orientation(picture: Image.Image) -> int | None:
  """Not by getexif, which decodes a PNG that has no such tag."""
  exif = Image.Exif()
  try:
    exif.load(picture.info.get("exif"))
    return exif.get(_ORIENTATION)
  except (SyntaxError, ValueError, TypeError, KeyError, struct.error):
    return None  # a damaged tag turns nothing


def _tiff_tags(file: BinaryIO) -> ImageFileDirectory_v2:
  """Of the first page. Not by Image.open, which refuses some depths."""
  start = file.read(8)
  tags = ImageFileDirectory_v2(start + (file.read(8) if b"+" in start[:4] else b""))
  file.seek(tags.next)
  tags.load(file)
  return tags
