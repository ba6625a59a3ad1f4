"""Datasets written once as ArrayRecord by `python -m data.prepare`; they describe themselves.

Beside the records lie metadata.json and lists/SPLIT/NAME.txt, the published subsets by id. Splits
are train and val; where a dataset has them, "extra" holds further images without masks and "test"
is a third set with masks.
"""

import os
import pathlib
import re
from functools import cached_property

import numpy as np

from semiseg_jax.buckets import named, reached
from semiseg_jax.files import read_json
from semiseg_jax.input import decode
from semiseg_jax.input.files import is_own
from semiseg_jax.input.local_copy import local_copy
from semiseg_jax.input.sources import Dataset, DatasetInfo, Source, largest_size
from semiseg_jax.labels import IGNORE
from semiseg_jax.paths import user_path
from semiseg_jax.transforms.geometry import Record

METADATA = "metadata.json"  # written by tfds.core.MetadataDict beside the records
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class PreparedSource(Source):
  """One split of a prepared directory.

  metadata: what read_metadata gave, if it was called already (the index of a large set takes
  seconds to parse).
  Raises DataError naming the record if it does not decode.
  """

  def __init__(self, directory: str | os.PathLike, split: str, metadata: dict | None = None):
    self.directory, self.split = str(directory), split
    index = (metadata or read_metadata(directory))["splits"][split]
    self.ids = tuple(index["ids"])
    self.labeled = np.asarray(index["labeled"], bool)
    self.sizes = [tuple(size) for size in index["sizes"]]
    self.counts = np.asarray(index["counts"], np.int64)

  def __getstate__(self):
    return {key: value for key, value in self.__dict__.items() if key != "_records"}

  def fingerprint(self) -> str:
    """Changes when the dataset is prepared anew."""
    stamp = (pathlib.Path(self.directory) / METADATA).stat().st_mtime_ns
    return f"{pathlib.Path(self.directory).resolve()} {self.split} {stamp}"

  def lists(self) -> list[str]:
    root = self._lists_directory
    found = (path.relative_to(root) for path in root.rglob("*.txt"))
    return sorted(path.with_suffix("").as_posix() for path in found if is_own(path))

  def ids_of(self, name: str) -> list[str]:
    return (self._lists_directory / f"{name}.txt").read_text().splitlines()

  @property
  def _lists_directory(self) -> pathlib.Path:
    return pathlib.Path(self.directory) / "lists" / self.split

  @cached_property
  def _records(self):
    import tensorflow_datasets as tfds

    # Its own decoders turn palettes into colours and depend on what else is installed.
    raw = tfds.decode.SkipDecoding()
    builder = tfds.builder_from_directory(self.directory)
    return builder.as_data_source(self.split, decoders={"image": raw, "label": raw})

  def __getitem__(self, index: int) -> Record:
    where = f"record {self.ids[index]!r} of {self.split} in {self.directory}"
    record = self._records[int(index)]
    image = decode.decode_image(record["image"], where, turned=False)  # nor are its masks
    if not self.labeled[index]:
      return {"image": image, "label": np.full(image.shape[:2], IGNORE, np.uint8)}
    label = decode.decode_label(record["label"], where)
    decode.check_sizes(image, label, where, "its mask")
    return {"image": image, "label": label}


def default_data_dir() -> pathlib.Path:
  """Where prepared datasets lie unless told otherwise: $SEMISEG_DATA, else ~/semiseg_data."""
  return user_path(os.environ.get("SEMISEG_DATA") or "~/semiseg_data")


def open_prepared(name: str, data_dir: str | os.PathLike, variant: str | None = None) -> Dataset:
  """Opens DATA_DIR/[semiseg_]NAME/[VARIANT/]VERSION, the newest version.

  variant may be left out where there is only one. A set in a bucket is copied, see `local_copy`.
  Raises FileNotFoundError if nothing is prepared and ValueError if the variant has to be named.
  """
  return open_directory(find_prepared(name, data_dir, variant), name)


def open_directory(directory: pathlib.Path, name: str) -> Dataset:
  """Opens what find_prepared found."""
  directory = local_copy(directory)
  metadata = read_metadata(directory)
  open_split = lambda split: PreparedSource(directory, split, metadata)
  train, val = open_split("train"), open_split("val")
  extra, test = (
    open_split(split) if split in metadata["splits"] else None for split in ("extra", "test")
  )
  info = DatasetInfo(
    name=name,
    class_names=tuple(metadata["class_names"]),
    palette=np.asarray(metadata["palette"], np.uint8),
    size=largest_size(val.sizes),
  )
  return Dataset(info, train, val, extra, test)


def find_prepared(
  name: str, data_dir: str | os.PathLike, variant: str | None = None
) -> pathlib.Path:
  """The directory of a prepared dataset; see open_prepared."""
  root = reached(user_path(data_dir))
  found: dict[str, list[pathlib.Path]] = {}
  for folder in (root / name, root / f"semiseg_{name}"):
    with named(root):
      paths = [*folder.glob(f"*/{METADATA}"), *folder.glob(f"*/*/{METADATA}")]
    for path in paths:
      if _VERSION.fullmatch(path.parent.name):  # neither unfinished nor TFDS's own notes
        found.setdefault("/".join(path.parts[len(folder.parts) : -2]), []).append(path.parent)
  if variant is not None:
    found = {key: value for key, value in found.items() if key == variant}
  if not found:
    wanted = name if variant is None else f"{name} ({variant})"
    raise FileNotFoundError(
      f"no prepared dataset {wanted} under {root}; prepare it with "
      f"`python -m data.prepare {name}` or name another data_dir"
    )
  if len(found) > 1:
    raise ValueError(f"{name} is prepared in several variants, name one of {sorted(found)}")
  (versions,) = found.values()
  return max(versions, key=lambda path: [int(part) for part in path.name.split(".")])


def read_metadata(directory: str | os.PathLike) -> dict:
  """Class names, palette, size and the index of every split, as data/common.py wrote them."""
  path = pathlib.Path(directory) / METADATA
  try:
    return read_json(path, "")
  except (OSError, ValueError) as error:
    raise ValueError(
      f"{path} is missing or damaged; delete its folder and prepare again"
    ) from error
