"""Pictures and masks as people have them at hand: a file, an array, or one of Pillow's images."""

import os
import pathlib

import jax
import numpy as np
from PIL import Image, ImageOps

from semiseg_jax.input.decode import (
  DataError,
  check_label,
  check_palette,
  decode_image,
  decode_label,
  mask_of,
)
from semiseg_jax.input.levels import to_levels
from semiseg_jax.paths import local_path

Picture = str | os.PathLike | np.ndarray | jax.Array | Image.Image

_CHANNELS = (1, 3, 4)  # of an array: grey, RGB, RGB with an alpha that is left out, as in files
_DEEP = ("I", "F")  # what Pillow's modes of greys beyond 8 bits begin with
_MULTIPLIED = {"La": "LA", "RGBa": "RGBA"}  # by the alpha; Pillow converts to these alone


def read_picture(picture: Picture, where: str = "the picture") -> np.ndarray:
  """RGB levels uint8 [H,W,3] of a path, an array uint8 [H,W], [H,W,1|3|4], or a Pillow image.

  An alpha channel is left out; rotation tags and numbers beyond 8 bits are treated as in files,
  see `decode_image`. where: what an error calls a picture without a path. Raises
  FileNotFoundError for a path to nothing and DataError for what is no picture.
  """
  if isinstance(picture, str | os.PathLike):
    path = existing_file(picture)
    return decode_image(path.read_bytes(), str(path))
  if isinstance(picture, Image.Image):
    return _of_pillow(picture, where)
  if isinstance(picture, np.ndarray | jax.Array):
    return _of_array(np.asarray(picture), where)
  raise DataError(
    "picture type",
    f"{where} is a {type(picture).__name__}: give a path, an array uint8 [H,W,3] or a Pillow image",
  )


def read_mask(mask: Picture, where: str = "the mask") -> np.ndarray:
  """The ids uint8 [H,W] that a path, an integer array [H,W] or a Pillow image holds.

  Raises as `read_picture`.
  """
  if isinstance(mask, str | os.PathLike):
    path = existing_file(mask)
    return decode_label(path.read_bytes(), str(path))
  if not isinstance(mask, np.ndarray | jax.Array | Image.Image):
    raise DataError(
      "mask format",
      f"{where} is a {type(mask).__name__}: give a path, an integer array [H,W] or a Pillow image",
    )
  if not isinstance(mask, Image.Image):
    return check_label(np.asarray(mask), where)
  try:
    stored = mask_of(mask, where)
  except DataError:
    raise
  except (OSError, SyntaxError, ValueError) as error:  # Pillow reads the pixels only now
    raise DataError("undecodable", f"{where} does not decode ({error})") from error
  check_palette(stored, where)
  return check_label(stored.pixels, where)


def existing_file(path: str | os.PathLike) -> pathlib.Path:
  """FileNotFoundError if it isn't there, DataError if it is a folder."""
  path = local_path(path)
  if path.is_dir():
    raise DataError("folder", f"{path} is a folder: give its files as a list")
  if not path.is_file():
    raise FileNotFoundError(f"there is no file {path}")
  return path


def _of_array(levels: np.ndarray, where: str) -> np.ndarray:
  is_picture = levels.ndim == 2 or (levels.ndim == 3 and levels.shape[-1] in _CHANNELS)
  if not is_picture or not levels.size:
    several = " (give several pictures as a list)" if levels.ndim == 4 else ""
    raise DataError(
      "picture shape", f"{where} is an array of shape {levels.shape}, not [H,W,3] or [H,W]{several}"
    )
  if levels.dtype != np.uint8:
    raise DataError(
      "picture type",
      f"{where} is an array of {levels.dtype}: give levels from 0 to 255 as uint8",
    )
  levels = levels[..., None] if levels.ndim == 2 else levels[..., :3]
  return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)))


def _of_pillow(image: Image.Image, where: str) -> np.ndarray:
  where = getattr(image, "filename", "") or where
  try:
    image = ImageOps.exif_transpose(image)
    if image.mode in _MULTIPLIED:
      image = image.convert(_MULTIPLIED[image.mode])
    levels = np.asarray(image if image.mode.startswith(_DEEP) else image.convert("RGB"))
  except (OSError, SyntaxError, ValueError) as error:
    raise DataError("undecodable", f"{where}: the image does not decode ({error})") from error
  if levels.dtype != np.uint8:
    try:
      levels, _ = to_levels(levels)
    except ValueError as error:
      raise DataError("levels", f"{where}: {error}; convert it to RGB") from error
  return _of_array(levels, where)
