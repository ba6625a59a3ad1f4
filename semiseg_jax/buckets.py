"""Paths in buckets of Google Cloud Storage, "gs://BUCKET/FOLDER": etils' epath over gcsfs.

They are used like pathlib's. An object there is written whole or not at all; nothing is appended to
one, and none can be locked.
"""

import contextlib
import functools
import logging
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

SCHEME = "gs://"
_LIBRARIES = ("gcsfs", "aiohttp", "google", "requests")  # those on the way there
_PATIENCE = 5.0  # seconds without an answer until that is said
_ROLES = "roles/storage.objectUser and roles/storage.legacyBucketReader"


class Object(NamedTuple):
  """Of what is stored in a bucket, its bytes and when it was written, in seconds."""

  size: int
  changed: int


def is_bucket(path: str | os.PathLike) -> bool:
  """Whether it names a bucket, or something in one."""
  return str(path).startswith(SCHEME)


def bucket_path(path: str | os.PathLike) -> pathlib.Path:
  """A path to be used like pathlib's, without a look at the bucket.

  Raises ValueError for one without a bucket's name, ImportError without gcsfs.
  """
  text = os.fspath(path)
  if not text.removeprefix(SCHEME).partition("/")[0]:
    raise ValueError(f"{text!r} names no bucket: it should be gs://BUCKET/FOLDER")
  return _library(text)(text)


def reached(path: pathlib.Path) -> pathlib.Path:
  """The same path; if it is in a bucket, that one was there and could be read.

  Raises FileNotFoundError, PermissionError or another OSError, in a line that names the path.
  """
  if is_bucket(path):
    with named(path), _said_if_slow(path):
      _look(str(path).removeprefix(SCHEME).partition("/")[0])
  return path


def objects(path: pathlib.Path) -> dict[str, Object]:
  """All that lies below a folder, by its name from there, or the one object itself by ""; listed by
  a question for every thousand."""
  found = _files().find(str(path), detail=True)
  whole = str(path).removeprefix(SCHEME).rstrip("/")
  return {
    name.removeprefix(whole).lstrip("/"): Object(each["size"], int(each["mtime"].timestamp()))
    for name, each in found.items()
    if not name.endswith("/")  # what consoles put there for a folder
  }


def fetch(path: pathlib.Path, target: pathlib.Path) -> None:
  """Writes an object into a file on this machine."""
  _files().get_file(str(path), str(target))


@contextlib.contextmanager
def named(path: Any) -> Iterator[None]:
  """What the libraries raise on the way to a bucket, as an OSError that names this path in it."""
  try:
    yield
  except Exception as error:
    if not is_bucket(path) or (said := _said(error)) is None:
      raise
    kind, what = said
    raise kind(f"{path}: {what}") from error


def is_cut_off(error: BaseException) -> bool:
  """Whether it says that a bucket can't be reached, and so nothing of what lies there."""
  if said := _said(error):
    return said[0] is not FileNotFoundError
  statuses = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "UNAUTHENTICATED", "ABORTED")
  return any(status in str(error) for status in statuses)


def _said(error: BaseException) -> tuple[type[OSError], str] | None:
  """(kind, text for people) of an error of those libraries; None for any other."""
  text = " ".join(str(error).split())[:300]
  # two that gcsfs raises as if they were the system's
  is_forbidden = isinstance(error, OSError) and text.startswith("Forbidden: ")
  is_missing = isinstance(error, FileNotFoundError) and text.startswith("http")
  is_theirs = type(error).__module__.partition(".")[0] in _LIBRARIES
  if not (is_forbidden or is_missing or is_theirs):
    return None
  code = getattr(error, "code", 0)
  if is_forbidden or code in (401, 403):
    return PermissionError, f"this account may not do that ({text}); it needs {_ROLES}"
  if is_missing or code == 404:
    return FileNotFoundError, f"the bucket, or what was looked for, is not there ({text})"
  return ConnectionError, f"the bucket can't be reached ({text or type(error).__name__})"


@functools.cache
def _look(bucket: str) -> None:
  """Asks for one object, once for each bucket."""
  try:
    _files().call("GET", "b/{}/o", bucket, maxResults=1, json_out=True)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f"there is no bucket {SCHEME}{bucket}: make it first, gcloud storage buckets create"
    ) from error


@contextlib.contextmanager
def _said_if_slow(path: pathlib.Path) -> Iterator[None]:
  text = f"{path} doesn't answer yet; it is tried for about half a minute"
  timer = threading.Timer(_PATIENCE, logging.warning, [text])
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


@functools.cache
def _epath() -> type[pathlib.Path]:
  """The class of paths, once gcsfs is set to what is needed here."""
  import fsspec
  import gcsfs  # noqa: F401
  from etils import epath

  # other hosts and TensorStore write there too: what was listed once is soon no longer so
  fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
  for name in ("gcsfs", "google.auth"):  # they log tracebacks of what they raise, and each try
    logging.getLogger(name).setLevel(logging.CRITICAL)
  return epath.Path


def _files() -> Any:
  """gcsfs itself, for what paths can't do."""
  import fsspec

  return fsspec.filesystem("gcs")


def _library(text: str) -> type[pathlib.Path]:
  try:
    return _epath()
  except ImportError as error:
    raise ImportError(f"{text} needs pip install 'semiseg_jax[gcs]'") from error
