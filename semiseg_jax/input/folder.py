"""A directory of images, with masks for some of them, read where it lies.

    ROOT/images/NAME.jpg  ROOT/masks/NAME.png  [ROOT/val_images/...  ROOT/val_masks/...]
or  ROOT/train  ROOT/trainannot  ROOT/val  ROOT/valannot
or  whatever ROOT/dataset.toml says, all keys optional:

    class_names = ["sky", "road"]
    ignore_index = 255
    palette = [[70, 130, 180], [128, 64, 128]]
    train_images = "images"         # directories relative to ROOT
    train_masks = "masks"
    val_images = "val_images"
    val_masks = "val_masks"

A mask is an index PNG (grey or palette) of the image's stem. Without validation images every fifth
image that has a mask is held out.
"""

import hashlib
import os
import pathlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from semiseg_jax.input import decode
from semiseg_jax.input.class_ids import ClassIds
from semiseg_jax.input.files import IMAGE_SUFFIXES, is_own
from semiseg_jax.input.sources import Dataset, DatasetInfo, Source, largest_size
from semiseg_jax.labels import IGNORE
from semiseg_jax.paths import user_path
from semiseg_jax.transforms.geometry import Record

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
_HOLD_OUT = 5
_DIRECTORIES = ("train_images", "train_masks", "val_images", "val_masks")
_KEYS = ("class_names", "ignore_index", "palette", *_DIRECTORIES)
_LAYOUTS = (
  ("images", "masks", "val_images", "val_masks"),
  ("train", "trainannot", "val", "valannot"),
)


@dataclass(frozen=True)
class Listing:
  """The files of one split in natural order of their stems; masks holds None where there is none.

  orphans: masks without an image.
  """

  images: tuple[pathlib.Path, ...]
  masks: tuple[pathlib.Path | None, ...]
  orphans: tuple[pathlib.Path, ...]


class FolderSource(Source):
  """Images and masks of one split.

  ignore_index: id that becomes IGNORE; any other id outside 0..num_classes-1 is a DataError, as
  are files that do not decode and masks of another size than their image.
  """

  def __init__(self, listing: Listing, num_classes: int, ignore_index: int):
    self.listing, self.num_classes, self.ignore_index = listing, num_classes, ignore_index
    self.ids = tuple(path.stem for path in listing.images)
    self.labeled = np.asarray([mask is not None for mask in listing.masks], bool)
    self.masks = f"{ignore_index} is ignored"
    self._known = ClassIds(num_classes, ignore_index)

  @cached_property
  def sizes(self) -> list[tuple[int, int]]:
    sizes = set()
    for path in self.listing.images:
      try:
        with open(path, "rb") as file:
          sizes.add(decode.read_size(file, str(path)))
      except (OSError, decode.DataError):
        continue  # reading the image will say which file is damaged
    return sorted(sizes)

  def __getitem__(self, index: int) -> Record:
    path, mask = self.listing.images[index], self.listing.masks[index]
    image = decode.decode_image(path.read_bytes(), str(path))
    if mask is None:
      return {"image": image, "label": np.full(image.shape[:2], IGNORE, np.uint8)}
    label = self.read_label(index)
    decode.check_sizes(image, label, str(path), str(mask))
    return {"image": image, "label": label}

  def read_label(self, index: int) -> np.ndarray:
    mask = self.listing.masks[index]
    return self._known(decode.decode_label(mask.read_bytes(), str(mask)), str(mask))

  def fingerprint(self) -> str:
    """Changes when any mask does."""
    digest = hashlib.sha256(f"{self.num_classes} {self.ignore_index}".encode())
    for image, mask in zip(self.listing.images, self.listing.masks, strict=True):
      stat = mask.stat() if mask else None
      stamp = (stat.st_size, stat.st_mtime_ns) if stat else None
      digest.update(f"{image.resolve()} {mask} {stamp}\n".encode())
    return digest.hexdigest()


def open_folder(
  root: str | os.PathLike,
  *,
  class_names: Sequence[str] | None = None,
  ignore_index: int | None = None,
  palette: Sequence[Sequence[int]] | None = None,
) -> Dataset:
  """Opens the directory; the arguments override what its dataset.toml says.

  Raises FileNotFoundError for a missing or empty directory and ValueError where nothing can be
  learnt from it (no class names, no labelled image).
  """
  root = user_path(root)
  settings = read_settings(root)
  class_names = tuple(class_names or settings.get("class_names", ()))
  if not class_names:
    raise ValueError(
      f"the classes of {root} are not known: give class_names, or write them to "
      f'{root / "dataset.toml"} as class_names = ["first", "second"], in order of their ids'
    )
  if len(class_names) > 255:
    raise ValueError(f"{len(class_names)} classes do not fit 8-bit labels (at most 255)")
  if ignore_index is None:
    ignore_index = settings.get("ignore_index", IGNORE)
  if palette is None:
    palette = settings.get("palette", make_palette(len(class_names)))
  palette = np.asarray(palette, np.uint8)
  if palette.shape != (len(class_names), 3):
    raise ValueError(f"palette has shape {palette.shape}, not {(len(class_names), 3)}")
  train, val = list_splits(root, settings)
  if not any(train.masks):
    raise ValueError(
      f"no image of {root} has a mask: the stem of a mask must equal that of its image"
    )
  if val is None:
    train, val = _hold_out(train, root)
  train, val = (FolderSource(listing, len(class_names), ignore_index) for listing in (train, val))
  return Dataset(DatasetInfo(root.name, class_names, palette, largest_size(val.sizes)), train, val)


def read_settings(root: pathlib.Path) -> dict:
  """dataset.toml as a dict ({} without one). Raises if root is no directory or a key is unknown."""
  if not root.is_dir():
    raise FileNotFoundError(f"{root} is not a directory; root must hold the images and masks")
  path = root / "dataset.toml"
  if not path.exists():
    return {}
  try:
    settings = tomllib.loads(path.read_text())
  except tomllib.TOMLDecodeError as error:
    raise ValueError(f"{path}: {error}") from error
  if unknown := sorted(set(settings) - set(_KEYS)):
    raise ValueError(f"{path}: unknown keys {unknown}; known are {list(_KEYS)}")
  return settings


def list_splits(root: pathlib.Path, settings: dict) -> tuple[Listing, Listing | None]:
  """The files of train and of val, None where there are no validation images."""
  layout = next((layout for layout in _LAYOUTS if (root / layout[0]).is_dir()), _LAYOUTS[0])
  images, masks, val_images, val_masks = (
    root / settings.get(key, default) for key, default in zip(_DIRECTORIES, layout, strict=True)
  )
  for key, directory in (("val_images", val_images), ("val_masks", val_masks)):
    if key in settings and not directory.is_dir():
      raise FileNotFoundError(f"{directory} ({key} of dataset.toml) is not a directory")
  val = list_pairs(val_images, val_masks) if val_images.is_dir() else None
  return list_pairs(images, masks), val


def list_pairs(images: pathlib.Path, masks: pathlib.Path) -> Listing:
  """Pairs the files of two directories by stem."""
  image_of = _by_stem(images, IMAGE_SUFFIXES)
  if not image_of:
    state = "is empty" if images.is_dir() else "does not exist"
    raise FileNotFoundError(
      f"{images} {state}; it should hold images ({', '.join(IMAGE_SUFFIXES)})"
    )
  mask_of = _by_stem(masks, MASK_SUFFIXES)
  stems = sorted(image_of, key=natural_order)
  return Listing(
    tuple(image_of[stem] for stem in stems),
    tuple(mask_of.get(stem) for stem in stems),
    tuple(mask_of[stem] for stem in sorted(mask_of, key=natural_order) if stem not in image_of),
  )


def natural_order(text: str) -> list:
  """Sort key that puts 2 before 10 and is alphabetical otherwise."""
  parts = re.split(r"(\d+)", text)  # numbers are the odd parts
  return [(int(part) if position % 2 else 0, part) for position, part in enumerate(parts)]


def make_palette(num_classes: int) -> np.ndarray:
  """Distinct colours for any number of classes, uint8 [K,3]: the bits of the id spread over RGB."""
  bits = np.arange(1, num_classes + 1)[:, None] >> np.arange(24) & 1
  return np.packbits(bits.reshape(-1, 8, 3), axis=1)[:, 0]


def _by_stem(directory: pathlib.Path, suffixes: Sequence[str]) -> dict[str, pathlib.Path]:
  found: dict[str, pathlib.Path] = {}
  for path in sorted(directory.glob("*")) if directory.is_dir() else ():
    if path.suffix.lower() not in suffixes or not is_own(path.relative_to(directory)):
      continue
    if path.stem in found:
      raise ValueError(f"{found[path.stem]} and {path} have one stem; which is meant?")
    found[path.stem] = path
  return found


def _hold_out(listing: Listing, root: pathlib.Path) -> tuple[Listing, Listing]:
  labeled = [i for i, mask in enumerate(listing.masks) if mask]
  if len(labeled) < 2:
    raise ValueError(f"{root} has one labelled image and no val_images: nothing to validate on")
  held = set(labeled[_HOLD_OUT - 1 :: _HOLD_OUT] or labeled[-1:])
  pick = lambda rows: Listing(
    tuple(listing.images[i] for i in rows), tuple(listing.masks[i] for i in rows), ()
  )
  return pick([i for i in range(len(listing.images)) if i not in held]), pick(sorted(held))
