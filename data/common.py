"""What the dataset builders share: reading a tree of files, and the stored form of a record.

Images and labels are stored as encoded bytes, labels as single-channel PNGs of train ids with
IGNORE; metadata.json beside the records holds class names, palette, and for every split its ids,
which of them have a mask, the sizes that occur, pixels per class of each record, and what was
skipped; lists/SPLIT/NAME.txt holds the published subsets, one id per line.
"""

import inspect
import io
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import cv2
import grain
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from rich.console import Console
from rich.progress import track

from data import conventions, published
from semiseg_jax.input.decode import DataError, check_pixels, decode_image
from semiseg_jax.input.files import is_own
from semiseg_jax.input.headers import numbers
from semiseg_jax.input.text import read_text
from semiseg_jax.labels import IGNORE

SPLITS = ("train", "val")
_HERE = pathlib.Path(__file__).parent
Example = tuple[str, dict[str, bytes | str]]


class Item(NamedTuple):
  """One image of a raw tree; `mask` is None where it is to be stored without labels."""

  name: str
  image: pathlib.Path
  mask: pathlib.Path | None


class FileBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A dataset of image files and masks.

  A subclass names its classes and lists its files; where masks are not index images, or variants
  are stored at another size, it also says how to read and resize them; the README.md beside it
  says how to get them. Files that cannot be used raise DataError, or are left out and counted if
  `skip_bad` is set; but masks of another convention always raise.
  """

  CLASS_NAMES: tuple[str, ...]
  PALETTE: np.ndarray  # uint8 [K,3]
  NUM_IMAGES: Mapping[str, int]  # of the official set, by split
  CLASS_OF_ID: np.ndarray  # see `class_of_id`; -1 where an id does not occur in this dataset
  OTHER_IDS: conventions.Named = MappingProxyType({})  # see `conventions.unknown_ids`
  WITHOUT_IDS: conventions.Named = MappingProxyType({})  # see `conventions.check_ids`
  MASKS: str  # which files of which release are meant
  HOMEPAGE = ""
  LICENSE = ""
  skip_bad = False

  @property
  def MANUAL_DOWNLOAD_INSTRUCTIONS(self) -> str:
    readme = pathlib.Path(inspect.getfile(type(self))).with_name("README.md").read_text()
    return readme.partition("**Getting it.** ")[2].partition("**Preparing it.**")[0]

  def list_items(self, raw: pathlib.Path) -> dict[str, list[Item]]:
    """The files of every split, in the order in which they are stored.

    Raises FileNotFoundError naming what is not there, before anything is read.
    """
    raise NotImplementedError

  def read_mask(self, path: pathlib.Path) -> Image.Image:
    """The ids in a mask, as an 8-bit Pillow image."""
    return read_mask(path)

  def resize(self, image: Image.Image) -> Image.Image:
    """The image at the size that the variant stores; the very object to keep the file's bytes.

    The mask follows by nearest.
    """
    return image

  def own_lists(self, raw: pathlib.Path, split: str, ids: list[str]) -> dict[str, list[str]]:
    """Subsets that the raw tree itself names, such as {"voc/train": ids}, out of the stored ids."""
    return {}

  def check_split(self, split: str, counts: np.ndarray, skipped: Sequence[tuple[str, str]]) -> None:
    """ValueError where the masks of a split as a whole are of another convention.

    counts: int [n,K], pixels per class of every record. skipped: kind and message of the others.
    """
    conventions.check_skipped(split, skipped, len(counts))
    conventions.check_ids(split, counts, self.CLASS_OF_ID, self.WITHOUT_IDS, self.MASKS)

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset_info(self, homepage=self.HOMEPAGE, license=self.LICENSE)

  def _split_generators(self, dl_manager) -> dict[str, Iterator[Example]]:
    raw = pathlib.Path(dl_manager.manual_dir)
    listed = self.list_items(raw)
    seen: dict[str, pathlib.Path] = {}
    usable = {split: self._usable(split, items, seen) for split, items in listed.items()}
    return {split: self._generate_examples(split, items, raw) for split, items in usable.items()}

  def _usable(self, split: str, items: list[Item], seen: dict[str, pathlib.Path]) -> list[Item]:
    """Without doubles and what is missing: known before any file is read."""
    usable = []
    for item in items:
      if item.name in seen:
        message = f"{item.image} and {seen[item.name]} have the same id {item.name}"
        self._bad(split, DataError("duplicate id", message))
      elif not item.image.is_file():
        self._bad(split, DataError("missing image", f"{item.image} is missing"))
      elif item.mask is not None and not item.mask.is_file():
        message = f"{item.mask} is missing; it is the mask of {item.image}: take {self.MASKS}"
        self._bad(split, DataError("missing mask", message))
      else:
        seen[item.name] = item.image
        usable.append(item)
    return usable

  def _generate_examples(
    self, split: str, items: list[Item], raw: pathlib.Path
  ) -> Iterator[Example]:
    threads = os.cpu_count() or 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    results = grain.MapDataset.source(items).map(self._load).to_iter_dataset(options)
    console = Console(stderr=True)
    for item, result in zip(
      items, track(results, split, total=len(items), console=console), strict=True
    ):
      if isinstance(result, DataError):
        self._bad(split, result)
      else:
        yield example(self, split, item.name, *result)
    index = split_index(self, split)
    if not index["ids"]:
      raise ValueError(f"no image of {split} can be used, first problem: {index['skipped'][0][1]}")
    self.check_split(split, np.asarray(index["counts"]), index["skipped"])
    self._write_lists(raw, split, index["ids"])

  def _load(self, item: Item) -> tuple[bytes, np.ndarray | tuple[int, int]] | DataError:
    """Encoded image, and its label or, without one, its size."""
    try:
      encoded, image = read_image(item.image)
      resized = self.resize(image)
      if resized is not image:
        encoded = encode_png(np.asarray(resized))
      if item.mask is None:
        return encoded, resized.size[::-1]
      return encoded, self._label(item, image.size, resized.size)
    except DataError as error:
      return error

  def _label(self, item: Item, size: tuple[int, int], stored: tuple[int, int]) -> np.ndarray:
    mask = self.read_mask(item.mask)
    if mask.size != size:
      raise DataError(
        "size mismatch",
        f"image and mask differ in size (width, height): {size} in {item.image}, {mask.size} in "
        f"{item.mask}",
      )
    ids = np.asarray(mask if stored == size else mask.resize(stored, Image.Resampling.NEAREST))
    label = self.CLASS_OF_ID[ids]
    if label.min() < 0:
      raise conventions.unknown_ids(
        item.mask, ids, self.CLASS_OF_ID, self.OTHER_IDS, self.PALETTE, self.MASKS
      )
    return label.astype(np.uint8)

  def _bad(self, split: str, error: DataError) -> None:
    if not self.skip_bad or error.kind == conventions.KIND:
      raise error
    split_index(self, split)["skipped"].append([error.kind, str(error)])

  def _write_lists(self, raw: pathlib.Path, split: str, ids: list[str]) -> None:
    """The published subsets, of which there are none if this is not the published listing."""
    dataset = self.name.removeprefix("semiseg_")
    lists = published.lists(dataset, split, ids) | self.own_lists(raw, split, ids)
    for name, members in lists.items():
      path = pathlib.Path(self.data_path) / "lists" / split / f"{name}.txt"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text("\n".join(members) + "\n")


def read_classes(dataset: str) -> tuple[tuple[str, ...], np.ndarray]:
  """Names and palette, uint8 [K,3], of a dataset's classes.tsv."""
  names, colors = zip(*read_table(_HERE / dataset / "classes.tsv"), strict=True)
  return names, np.asarray([color.split() for color in colors], np.uint8)


def read_table(path: pathlib.Path) -> list[list[str]]:
  """The rows of a file whose columns are separated by tabs."""
  return [line.split("\t") for line in path.read_text().splitlines()]


def class_of_id(ids: Sequence[int], ignored: Iterable[int] = ()) -> np.ndarray:
  """int16 [256]: id in the files -> class, IGNORE, or -1 for an error.

  ids: of the classes, in their order. ignored: ids that are IGNORE where they are no class.
  """
  table = np.full(256, -1, np.int16)
  table[list(ignored)] = IGNORE
  table[list(ids)] = np.arange(len(ids))
  return table


def dataset_info(builder: tfds.core.DatasetBuilder, **texts: str) -> tfds.core.DatasetInfo:
  """What a builder's `_info` returns; texts: homepage, license."""
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
      class_names=list(builder.CLASS_NAMES),
      palette=builder.PALETTE.tolist(),
      official=dict(builder.NUM_IMAGES),
      splits={},
    ),
    description=inspect.getmodule(type(builder)).__doc__,
    **texts,
  )


def split_index(builder: tfds.core.DatasetBuilder, split: str) -> dict[str, list]:
  """What metadata.json will say of a split; filled while its records are made."""
  empty = {"ids": [], "labeled": [], "sizes": [], "counts": [], "skipped": []}
  return builder.info.metadata["splits"].setdefault(split, empty)


def example(
  builder: tfds.core.DatasetBuilder,
  split: str,
  name: str,
  image: bytes,
  label: np.ndarray | tuple[int, int],
) -> Example:
  """One record to yield, entered into the index.

  label: uint8 [H,W] of train ids and IGNORE, or (H, W) of an image that has none.
  """
  index, num_classes = split_index(builder, split), len(builder.info.metadata["class_names"])
  labeled = isinstance(label, np.ndarray)
  size = label.shape if labeled else label
  stored = label if labeled else np.full((1, 1), IGNORE, np.uint8)
  counts = np.bincount(stored[stored != IGNORE], minlength=num_classes)
  if len(counts) > num_classes:
    raise ValueError(f"{name}: label id {len(counts) - 1} of {num_classes} classes")
  index["ids"].append(name)
  index["labeled"].append(labeled)
  index["counts"].append(counts.tolist())
  if list(size) not in index["sizes"]:
    index["sizes"].append(list(size))
  return name, {"image": image, "label": encode_png(stored), "id": name}


def part(raw: pathlib.Path, path: str) -> pathlib.Path:
  """raw/path, or where that lies if the tree, or one of its archives, was unpacked a folder or two
  deeper. FileNotFoundError where there are several such."""
  for pattern in (path, f"*/{path}", f"*/*/{path}"):
    found = [p for p in sorted(raw.glob(pattern)) if is_own(p.relative_to(raw))]
    if len(found) > 1:
      raise FileNotFoundError(f"{found[0]} or {found[1]}? Put the files of both into one folder")
    if found:
      return found[0]
  return raw / path


def pairs(images: pathlib.Path, masks: pathlib.Path, pattern: str, suffix: str) -> list[Item]:
  """The images that match, each with the mask of its stem and `suffix`; raises as list_files."""
  found = list_files(images, pattern)
  return [Item(image.stem, image, masks / f"{image.stem}{suffix}") for image in found]


def list_files(directory: pathlib.Path, pattern: str) -> list[pathlib.Path]:
  """The user's files that match, sorted by folder and name. FileNotFoundError without any."""
  own = (path for path in directory.glob(pattern) if is_own(path.relative_to(directory)))
  found = sorted(own, key=lambda path: (path.parent, path.name))
  if not found:
    raise FileNotFoundError(f"no file matches {directory / pattern}")
  return found


def read_ids(path: pathlib.Path) -> list[str]:
  """The lines of a text file of ids. FileNotFoundError if it is missing."""
  if not path.is_file():
    raise FileNotFoundError(f"the list of ids {path} is missing")
  return read_text(path).split()


def encode_png(array: np.ndarray) -> bytes:
  """uint8 [H,W] or RGB [H,W,3] as PNG."""
  ok, png = cv2.imencode(".png", array if array.ndim == 2 else array[..., ::-1])
  assert ok, "OpenCV encodes every uint8 array"
  return png.tobytes()


def read_image(path: pathlib.Path) -> tuple[bytes, Image.Image]:
  """The file's bytes (re-encoded unless it is RGB or grey of 8 bits) and its decoded RGB image.

  Raises DataError naming a damaged file.
  """
  encoded = path.read_bytes()
  image = decode(encoded, path)
  if numbers(encoded).deep:
    levels = decode_image(encoded, str(path), turned=False)
    return encode_png(levels), Image.fromarray(levels)
  rgb = image.convert("RGB")
  return (encoded if image.mode in ("RGB", "L") else encode_png(np.asarray(rgb))), rgb


def read_mask(path: pathlib.Path) -> Image.Image:
  """The ids of an index PNG, grey or palette, as 8 bits. Raises DataError naming the file."""
  mask = decode(path.read_bytes(), path)
  if mask.mode in ("L", "P"):
    return mask
  if mask.mode not in ("I", "I;16", "I;16B"):
    message = f"{path}: a mask of mode {mask.mode}, not one id per pixel"
    raise DataError("mask format", f"{message}; unpack the official masks anew")
  ids = np.asarray(mask)
  if ids.min() < 0 or ids.max() > 255:
    message = f"{path}: ids up to {ids.max()} are no class ids; unpack the official masks anew"
    raise DataError("label range", message)
  return Image.fromarray(ids.astype(np.uint8))


def ids_of_colors(
  image: Image.Image, ids: Mapping[tuple[int, int, int], int], path: pathlib.Path
) -> Image.Image:
  """A mask drawn in colours -> the id of each pixel's colour.

  Raises DataError naming a colour that has no id.
  """
  rgb = np.asarray(image.convert("RGB")).astype(np.int32)
  codes, inverse = np.unique(
    rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2], return_inverse=True
  )
  colors = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in codes]
  if unknown := [color for color in colors if color not in ids]:
    message = f"{path}: no class has the colour {unknown[0]} ({len(unknown)} unknown colours)"
    raise DataError("unknown colour", message)
  table = np.asarray([ids[color] for color in colors], np.uint8)
  return Image.fromarray(table[inverse].reshape(rgb.shape[:2]))


def decode(encoded: bytes, path: pathlib.Path) -> Image.Image:
  """Any image file, decoded to its end. Raises DataError if it is damaged or truncated."""
  try:
    image = Image.open(io.BytesIO(encoded))
    check_pixels(image.height, image.width, str(path))
    image.load()
  except DataError:
    raise
  except (OSError, SyntaxError, ValueError) as error:
    raise DataError("damaged file", f"{path}: damaged or truncated image ({error})") from error
  return image
