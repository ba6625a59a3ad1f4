"""A directory of images, with masks for some of them, read where it lies.

    ROOT/images/NAME.jpg  ROOT/masks/NAME.png  [ROOT/val_images/...  ROOT/val_masks/...]
or  ROOT/train  ROOT/trainannot  ROOT/val  ROOT/valannot
or  whatever ROOT/dataset.toml says, all keys optional:

    class_names = ["sky", "road"]
    ignore_index = 255
    values = {0 = "sky", 128 = "road"}    # what masks store, where it isn't 0, 1, 2, ...
    palette = [[70, 130, 180], [128, 64, 128]]
    ignore_color = [0, 0, 0]              # of pixels without a label, in masks drawn in colours
    train_images = "images"               # directories relative to ROOT
    train_masks = "masks"
    val_images = "val_images"
    val_masks = "val_masks"

A mask has the path of its image but for the suffix, below folders too: that path is the image's id.
It is an index PNG (grey or palette), or drawn in the colours of `palette`. Without validation
images every fifth image that has a mask is held out.
"""

import hashlib
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from semiseg_jax.input import decode
from semiseg_jax.input.class_ids import ClassColors, ClassIds, MaskReader
from semiseg_jax.input.files import IMAGE_SUFFIXES, is_own
from semiseg_jax.input.palettes import make_palette
from semiseg_jax.input.settings import DIRECTORIES, read_settings
from semiseg_jax.input.sources import Dataset, DatasetInfo, Source, largest_size
from semiseg_jax.labels import IGNORE
from semiseg_jax.paths import user_path
from semiseg_jax.transforms.geometry import Record

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
_NO_MASKS = (".jpg", ".jpeg", ".webp")  # taken where there is no other: reading says why not
_HOLD_OUT = 5
_LAYOUTS = (
  ("images", "masks", "val_images", "val_masks"),
  ("train", "trainannot", "val", "valannot"),
)


@dataclass(frozen=True)
class Listing:
  """The files of one split in natural order of their ids; masks holds None where there is none.

  orphans: masks without an image.
  """

  ids: tuple[str, ...]
  images: tuple[pathlib.Path, ...]
  masks: tuple[pathlib.Path | None, ...]
  orphans: tuple[pathlib.Path, ...]


class FolderSource(Source):
  """Images and masks of one split; mask files as `read` takes them.

  DataErrors are those of `read`, files that do not decode and masks of another size than their
  image. meaning: a text that changes when other classes are read.
  """

  def __init__(self, listing: Listing, read: MaskReader, meaning: str):
    self.listing, self.ids = listing, listing.ids
    self._read, self.masks = read, meaning
    self.labeled = np.asarray([mask is not None for mask in listing.masks], bool)

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
    return self._read(mask.read_bytes(), str(mask))

  def fingerprint(self) -> str:
    """Changes when any mask does."""
    digest = hashlib.sha256(self.masks.encode())
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
  if palette is None:
    palette = settings.get("palette")
  colors = make_palette(len(class_names)) if palette is None else np.asarray(palette, np.uint8)
  if colors.shape != (len(class_names), 3):
    raise ValueError(f"palette has shape {colors.shape}, not {(len(class_names), 3)}")
  values = _classes_of_values(settings, class_names, root)
  if ignore_index is None:
    unsaid = None if IGNORE in (values or {}) else IGNORE
    ignore_index = settings.get("ignore_index", unsaid)
  if ignore_index is not None and ignore_index in (values or {}):
    raise ValueError(f"{root}: the ignored id {ignore_index} is a class, too, by its values")
  ignore_color = settings.get("ignore_color")
  train, val = list_splits(root, settings)
  if val is None:
    train, val = _hold_out(train, root)
  read = MaskReader(
    ClassIds(len(class_names), ignore_index, values, class_names),
    None if palette is None else ClassColors(colors, ignore_color),
  )
  meaning = f"{len(class_names)} {ignore_index} {values} {palette} {ignore_color}"
  train, val = (FolderSource(listing, read, meaning) for listing in (train, val))
  ignored = ignore_index if values is None else None
  info = DatasetInfo(root.name, class_names, colors, largest_size(val.sizes), ignored)
  return Dataset(info, train, val)


def _classes_of_values(
  settings: Mapping[str, Any], class_names: Sequence[str], root: pathlib.Path
) -> dict[int, int] | None:
  """{id: class} of the settings' values, None without."""
  values = settings.get("values")
  if values is None:
    return None
  if unknown := sorted(set(values.values()) - set(class_names)):
    raise ValueError(
      f"{root / 'dataset.toml'}: values names {', '.join(unknown)}, no class of "
      f"{', '.join(class_names)}"
    )
  return {stored: class_names.index(name) for stored, name in values.items()}


def list_splits(root: pathlib.Path, settings: Mapping[str, Any]) -> tuple[Listing, Listing | None]:
  """The files of train and of val, None where there are no validation images.

  Raises FileNotFoundError without images and ValueError where none of them has a mask.
  """
  layout = next((layout for layout in _LAYOUTS if (root / layout[0]).is_dir()), _LAYOUTS[0])
  directories = [
    root / settings.get(key, default) for key, default in zip(DIRECTORIES, layout, strict=True)
  ]
  for key, directory in zip(DIRECTORIES[2:], directories[2:], strict=True):
    if key in settings and not directory.is_dir():
      raise FileNotFoundError(f"{directory} ({key} of dataset.toml) is not a directory")
  pairs = [directories[:2]] + ([directories[2:]] if directories[2].is_dir() else [])
  listings = [list_pairs(images, masks, directories) for images, masks in pairs]
  for listing, (images, masks) in zip(listings, pairs, strict=True):
    if not any(listing.masks):
      raise ValueError(_without_masks(listing, images, masks))
  return listings[0], listings[1] if len(listings) > 1 else None


def _without_masks(listing: Listing, images: pathlib.Path, masks: pathlib.Path) -> str:
  """What is said where no image has a mask."""
  if listing.orphans:
    other = listing.orphans[0].relative_to(masks)
    found = f"{len(listing.orphans)} masks there have other names, such as {other}"
  else:
    found = f"{masks} {'holds no masks' if masks.is_dir() else 'does not exist'}"
  return (
    f"none of the {len(listing.ids)} images in {images} has a mask in {masks}: {found}; a mask is "
    f"named as its image, such as {listing.ids[0]}.png"
  )


def list_pairs(
  images: pathlib.Path, masks: pathlib.Path, apart: Sequence[pathlib.Path] = ()
) -> Listing:
  """Pairs the files of two directories, and of those below, by their paths without suffix.

  apart: directories whose files do not count as those of a directory above them.
  """
  apart = [images, masks, *apart]
  image_of = _by_id(images, IMAGE_SUFFIXES, apart)
  if not image_of:
    state = "has no image" if images.is_dir() else "does not exist"
    raise FileNotFoundError(
      f"{images} {state}; it should hold images ({', '.join(IMAGE_SUFFIXES)})"
    )
  mask_of = _by_id(masks, _NO_MASKS, apart) | _by_id(masks, MASK_SUFFIXES, apart)
  ids = sorted(image_of, key=natural_order)
  return Listing(
    tuple(ids),
    tuple(image_of[name] for name in ids),
    tuple(mask_of.get(name) for name in ids),
    tuple(mask_of[name] for name in sorted(mask_of, key=natural_order) if name not in image_of),
  )


def natural_order(text: str) -> list:
  """Sort key that puts 2 before 10 and is alphabetical otherwise."""
  parts = re.split(r"(\d+)", text)  # numbers are the odd parts
  return [(int(part) if position % 2 else 0, part) for position, part in enumerate(parts)]


def _by_id(
  directory: pathlib.Path, suffixes: Sequence[str], apart: Sequence[pathlib.Path]
) -> dict[str, pathlib.Path]:
  """{path below the directory, without suffix: file}"""
  found: dict[str, pathlib.Path] = {}
  below = {other for other in apart if directory in other.parents}
  for path in sorted(directory.rglob("*")) if directory.is_dir() else ():
    if path.suffix.lower() not in suffixes or not is_own(path.relative_to(directory)):
      continue
    if path.is_dir() or not below.isdisjoint(path.parents):
      continue
    name = path.relative_to(directory).with_suffix("").as_posix()
    if name in found:
      raise ValueError(f"{found[name]} and {path} have one stem; which is meant?")
    found[name] = path
  return found


def _hold_out(listing: Listing, root: pathlib.Path) -> tuple[Listing, Listing]:
  labeled = [i for i, mask in enumerate(listing.masks) if mask]
  if len(labeled) < 2:
    raise ValueError(f"{root} has one labelled image and no val_images: nothing to validate on")
  held = set(labeled[_HOLD_OUT - 1 :: _HOLD_OUT] or labeled[-1:])
  pick = lambda rows: Listing(
    *(tuple(part[i] for i in rows) for part in (listing.ids, listing.images, listing.masks)), ()
  )
  return pick([i for i in range(len(listing.images)) if i not in held]), pick(sorted(held))
