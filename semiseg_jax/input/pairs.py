"""Pictures and their masks, given one by one, as a source."""

import os
import pathlib
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from semiseg_jax.input import decode
from semiseg_jax.input.class_ids import ClassIds, MaskReader
from semiseg_jax.input.picture import Picture, existing_file, read_mask, read_picture
from semiseg_jax.input.sources import Source
from semiseg_jax.transforms.geometry import Record

Held = pathlib.Path | np.ndarray


class Pairs(Source):
  """images, masks: as `read_picture` and `read_mask` take them; files are read when they are used.

  ignore_index: see `ClassIds`. Raises ValueError without a picture and unless every one has a mask,
  and as those do.
  """

  def __init__(
    self, images: Sequence[Picture], masks: Sequence[Picture], num_classes: int, ignore_index: int
  ):
    if len(images) != len(masks):
      raise ValueError(f"{len(images)} pictures and {len(masks)} masks: every picture needs one")
    if not len(images):
      raise ValueError("there is no picture with a mask")
    self._read = MaskReader(ClassIds(num_classes, ignore_index))
    self._images = [_held(x, read_picture, f"picture {i}") for i, x in enumerate(images)]
    self._masks = [_held(x, read_mask, f"mask {i}") for i, x in enumerate(masks)]
    self.ids = [_name(x, f"picture {i}") for i, x in enumerate(self._images)]
    self.labeled = np.ones(len(images), bool)

  @cached_property
  def sizes(self) -> list[tuple[int, int]]:
    return sorted({_size(image) for image in self._images})

  def __getitem__(self, index: int) -> Record:
    image, mask = self._images[index], self._masks[index]
    names = self.ids[index], _name(mask, f"mask {index}")
    image = read_picture(image, names[0])
    if isinstance(mask, np.ndarray):
      label = self._read.of_mask(decode.Mask(mask), names[1])
    else:
      label = self._read(mask.read_bytes(), names[1])
    decode.check_sizes(image, label, *names)
    return {"image": image, "label": label}


def _held(given: Picture, read: Callable[[Picture, str], np.ndarray], where: str) -> Held:
  """A path, or the array of anything else: two threads must not read one of Pillow's images."""
  return existing_file(given) if isinstance(given, str | os.PathLike) else read(given, where)


def _name(held: Held, otherwise: str) -> str:
  return otherwise if isinstance(held, np.ndarray) else str(held)


def _size(held: Held) -> tuple[int, int]:
  """(height, width); DataError for a file that is no picture."""
  if isinstance(held, np.ndarray):
    return held.shape[:2]
  with open(held, "rb") as file:
    return decode.read_size(file, str(held))
