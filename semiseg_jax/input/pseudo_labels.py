"""Pseudo-labels on disk: written once by a labelling pass, read as a source like any other.

DIRECTORY/labels.json, written last, says that the others are whole; chunk_XXXXX.arrayrecord holds
the label and the confidence of so many images each, in the order of labels.json's ids.
"""

import pathlib
import struct
from functools import cached_property
from typing import Any

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from semiseg_jax.files import read_json
from semiseg_jax.input.class_balance import kept
from semiseg_jax.input.sources import Source, Wrapped
from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms.geometry import Record

INDEX = "labels.json"
_HEADER = struct.Struct("<HH")  # height, width; then uint8 labels and float32 confidences


class PseudoLabels(Wrapped):
  """Images of a source with the labels of a store, and each label's "confidence" float32 [h,w].

  Maps have the size at which they were made, which may not be the image's. Raises
  FileNotFoundError without a finished store, ValueError for an image that it doesn't know.
  """

  def __init__(self, source: Source, directory: str | pathlib.Path):
    super().__init__(source)
    self.directory = str(directory)
    index = read_index(directory)
    place = {name: row for row, name in enumerate(index["ids"])}
    if unknown := [name for name in source.ids if name not in place]:
      raise ValueError(
        f"{directory} has no pseudo-labels of {len(unknown)} of {len(source)} images, first "
        f"{unknown[:3]}: it was made of other images"
      )
    self.rows = np.asarray([place[name] for name in source.ids])
    # the published version's labels are final: what did not pass is IGNORE there already
    count = len(index["class_names"])
    self.thresholds = np.zeros(count) if index["final"] else np.asarray(index["thresholds"])
    self.thresholds = self.thresholds.astype(np.float32)

  def __getstate__(self):
    return {key: value for key, value in self.__dict__.items() if key != "_records"}

  @cached_property
  def _records(self) -> grain.sources.ArrayRecordDataSource:
    return grain.sources.ArrayRecordDataSource(chunk_paths(self.directory))

  def __getitem__(self, index: int) -> Record:
    label, confidence = decode(self._records[int(self.rows[index])])
    label = np.where(kept(label, confidence, self.thresholds), label, IGNORE)
    return {**self.source[index], "label": label.astype(np.uint8), "confidence": confidence}


class Unlabeled(Wrapped):
  """Images whose pseudo-labels are still to be made: records of the same arrays, for planning."""

  def __getitem__(self, index: int) -> Record:
    image = self.source[index]["image"]
    size = image.shape[:2]
    label, confidence = np.full(size, IGNORE, np.uint8), np.zeros(size, np.float32)
    return {"image": image, "label": label, "confidence": confidence}


def read_index(directory: str | pathlib.Path) -> dict[str, Any]:
  """What labels.json says. FileNotFoundError if the labels were not finished."""
  path = pathlib.Path(directory) / INDEX
  if not path.exists():
    raise FileNotFoundError(f"{directory} holds no finished pseudo-labels: {INDEX} is missing")
  remedy = "remove the folder, so that the labels are made anew"
  index = read_json(path, remedy)
  if missing := [key for key in ("ids", "class_names", "final", "thresholds") if key not in index]:
    raise ValueError(f"{path} says nothing of {', '.join(missing)}: {remedy}")
  return index


def chunk_paths(directory: str | pathlib.Path) -> list[str]:
  """Of all chunks, in order."""
  return sorted(map(str, pathlib.Path(directory).glob("chunk_*.arrayrecord")))


class ChunkWriter:
  """Writes one chunk, image after image; the file appears under its name when it is whole."""

  def __init__(self, path: pathlib.Path):
    self._path, self._part = path, path.with_name(f"{path.name}.part")
    self._writer = ArrayRecordWriter(str(self._part), "group_size:1,zstd:1")

  def write(self, label: np.ndarray, confidence: np.ndarray) -> None:
    """label: uint8 [h,w]; confidence: float32 [h,w]."""
    self._writer.write(encode(label, confidence))

  def close(self) -> None:
    self._writer.close()
    self._part.replace(self._path)


def encode(label: np.ndarray, confidence: np.ndarray) -> bytes:
  return _HEADER.pack(*label.shape) + label.tobytes() + confidence.astype("<f4").tobytes()


def decode(record: bytes) -> tuple[np.ndarray, np.ndarray]:
  """(label uint8 [h,w], confidence float32 [h,w])"""
  size = _HEADER.unpack_from(record)
  start, count = _HEADER.size, size[0] * size[1]
  label = np.frombuffer(record, np.uint8, count, start).reshape(size)
  return label, np.frombuffer(record, "<f4", count, start + count).reshape(size)
