"""What lies in a bucket, copied once to this machine: readers want files by position."""

import concurrent.futures
import contextlib
import fcntl
import os
import pathlib
import shutil
import time
from collections.abc import Container, Iterator

from semiseg_jax.buckets import SCHEME, Object, fetch, is_bucket, named, objects, reached
from semiseg_jax.paths import cache_folder

_AT_ONCE = 16  # files that are copied at a time


def local_copy(path: pathlib.Path) -> pathlib.Path:
  """The path itself, or where a copy of what it names in a bucket, file or folder, lies.

  That is below the cache folder. What is there as it is in the bucket is not copied again, what has
  gone from the bucket goes; while one process copies, others wait. Raises FileNotFoundError where
  nothing is, OSError without enough room or a way to the bucket.
  """
  if not is_bucket(path):
    return path
  target = cache_folder() / "gs" / str(path).removeprefix(SCHEME)
  with named(path), _alone(cache_folder() / "gs.lock"):
    found = objects(reached(path))
    if not found:
      raise FileNotFoundError(f"there is nothing in {path}")
    if out := [name for name in found if ".." in name.split("/")]:
      raise ValueError(f"{path} holds {out[0]!r}, which would be copied to another folder")
    if target.is_dir():
      _remove_others(target, found)
    missing = {name: each for name, each in found.items() if not _is_same(target / name, each)}
    if missing:
      _copy_all(path, target, missing)
  return target


def _is_same(local: pathlib.Path, there: Object) -> bool:
  if not local.is_file():
    return False
  stat = local.stat()
  return (stat.st_size, int(stat.st_mtime)) == there


def _remove_others(target: pathlib.Path, found: Container[str]) -> None:
  for path in target.rglob("*"):
    if path.is_file() and path.relative_to(target).as_posix() not in found:
      path.unlink()


def _copy_all(source: pathlib.Path, target: pathlib.Path, wanted: dict[str, Object]) -> None:
  """Copies and says so: how much, where to, how long it took."""
  size = sum(each.size for each in wanted.values())
  target.parent.mkdir(parents=True, exist_ok=True)
  free = shutil.disk_usage(target.parent).free
  if size > free:
    raise OSError(
      f"{source} takes {_megabytes(size)} and {target.parent} has {_megabytes(free)} left: name "
      "another disk by XDG_CACHE_HOME, or mount the bucket"
    )
  print(f"copying {_megabytes(size)} from {source} to {target}, once for this machine", flush=True)
  start = time.monotonic()
  copy = lambda name: _copy(source / name, target / name, wanted[name])
  with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
    list(pool.map(copy, wanted))
  print(f"copied {len(wanted)} files in {time.monotonic() - start:.0f} s", flush=True)


def _copy(source: pathlib.Path, target: pathlib.Path, known: Object) -> None:
  """The file appears under its name when it is whole."""
  target.parent.mkdir(parents=True, exist_ok=True)
  part = target.with_name(f"{target.name}.part")
  fetch(source, part)
  if part.stat().st_size != known.size:
    raise OSError(f"{source} changed while it was copied: start again")
  os.utime(part, (known.changed, known.changed))
  part.replace(target)


def _megabytes(size: int) -> str:
  return f"{size / 1e6:,.1f} MB"


@contextlib.contextmanager
def _alone(lock: pathlib.Path) -> Iterator[None]:
  """The system releases it however the process ends."""
  lock.parent.mkdir(parents=True, exist_ok=True)
  with lock.open("w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(f"another process is copying data, waiting for {lock}", flush=True)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield
