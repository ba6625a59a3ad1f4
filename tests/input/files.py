"""Image files as they come, in memory: by Pillow, and TIFFs that Pillow does not write."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **kwargs) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, kind, **kwargs)
  return buffer.getvalue()


def with_orientation(image: Image.Image, kind: str, tag: int) -> bytes:
  exif = Image.Exif()
  exif[0x0112] = tag
  options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
  return encoded(image, kind, exif=exif, **options)


def tiff(
  pixels: np.ndarray,
  bits: int | None = None,
  strip: bytes | None = None,
  white: int | None = None,
  colors: int | None = None,
) -> bytes:
  """One page of the pixels' own type [H,W] or [H,W,C]. bits: if they are packed, into strip.

  white: what MaxSampleValue says; colors: what PhotometricInterpretation says.
  """
  height, width, channels = (*pixels.shape, 1)[:3]
  strip = pixels.tobytes() if strip is None else strip
  form = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
  tags = {
    256: width, 257: height, 258: bits or 8 * pixels.dtype.itemsize, 259: 1,
    262: 2 if channels > 2 else 1, 273: 0, 277: channels, 278: height, 279: len(strip), 339: form,
  }  # fmt: skip
  if colors is not None:
    tags[262] = colors
  if white is not None:
    tags[281] = white
  tags[273] = 8 + 2 + 12 * len(tags) + 4  # where the strip begins
  directory = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
  return b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + strip


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
  """A PNG with a further chunk behind its header."""
  chunk = struct.pack(">I", len(content)) + name + content
  return png[:33] + chunk + struct.pack(">I", zlib.crc32(name + content)) + png[33:]


def claiming(png: bytes, height: int, width: int) -> bytes:
  """A PNG whose header tells of another size."""
  header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
  return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
