"""Paths as people type them."""

import os
import pathlib

from semiseg_jax.buckets import bucket_path, is_bucket


def printable(path: str | os.PathLike) -> str:
  """The path as text, with a mark for what is no text in it: a file system takes any bytes."""
  return os.fsencode(path).decode(errors="replace")


def user_path(path: str | os.PathLike) -> pathlib.Path:
  """The path with ~ or ~NAME for a home directory, as in a shell; an unknown NAME stays.

  "gs://BUCKET/..." becomes a path in that bucket, see `buckets.bucket_path`, and raises as that.
  """
  return bucket_path(path) if is_bucket(path) else pathlib.Path(os.path.expanduser(path))


def local_path(path: str | os.PathLike) -> pathlib.Path:
  """The same for what is used as a file on this machine; ValueError for a bucket."""
  if is_bucket(path):
    raise ValueError(f"{path} must be on this machine: name a folder here, and copy what is there")
  return user_path(path)


def cache_folder() -> pathlib.Path:
  """Where copies and counts are kept that cost time to make again."""
  root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(root, "semiseg_jax")
