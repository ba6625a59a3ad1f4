"""Pixels per class and image: what label selection and sparse labels need to know of all labels."""

import concurrent.futures
import hashlib
import os

import numpy as np

from semiseg_jax.input.sources import Joined, Source, Subset, Transformed
from semiseg_jax.labels import IGNORE
from semiseg_jax.paths import cache_folder


def class_counts(
  source: Source, num_classes: int, threads: int | None = None, as_stored: bool = False
) -> np.ndarray:
  """int64 [n, num_classes]; rows of images without a mask are zero.

  as_stored: of the masks before any resizing, which prepared data knows without reading.

  Taken from the source if it knows them (prepared data), else from the user's cache, else by
  reading every label once with threads. Raises DataError for labels that cannot be read.
  """
  of = lambda part: class_counts(part, num_classes, threads, as_stored)
  if as_stored and isinstance(source, Transformed):
    return of(source.source)
  if isinstance(source, Subset):
    return of(source.source)[source.indices]
  if isinstance(source, Joined):
    return np.concatenate([of(source.first), of(source.second)])
  if source.counts is not None:
    return source.counts
  compute = lambda: _count(source, num_classes, threads)
  fingerprint = source.fingerprint()
  return cached(f"counts-{fingerprint}-{num_classes}", compute) if fingerprint else compute()


def cached(key: str, compute) -> np.ndarray:
  """The array kept under the hash of `key` in the user's cache, computed if it is not there."""
  path = cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
  try:
    return np.load(path, allow_pickle=False)
  except (OSError, ValueError):
    pass
  array = compute()
  try:  # a cache that cannot be written only costs time
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    with open(partial, "wb") as file:
      np.save(file, array)
    partial.replace(path)
  except OSError:
    pass
  return array


def _count(source: Source, num_classes: int, threads: int | None) -> np.ndarray:
  def one(index: int) -> np.ndarray:
    if not source.labeled[index]:
      return np.zeros(num_classes, np.int64)
    label = source.read_label(index)
    return np.bincount(label[label != IGNORE], minlength=num_classes)

  with concurrent.futures.ThreadPoolExecutor(threads or os.cpu_count()) as pool:
    rows = list(pool.map(one, range(len(source))))
  return np.stack(rows).astype(np.int64)
