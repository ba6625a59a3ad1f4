"""One run at a time in a working directory.

The lock is the system's, so that it ends with its process however that ends, and it holds between
hosts where the file system has locks (NFS, Lustre, GPFS and most others do; where there are none,
as in a bucket, it is said). The file `lock`, there while a run is, says whose it is.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import logging
import os
import pathlib
import re
import socket
from collections.abc import Iterator
from typing import IO, Any

import jax

from semiseg_jax.buckets import is_bucket, named
from semiseg_jax.files import write_text
from semiseg_jax.runtime import processes
from semiseg_jax.runtime.errors import in_one_line

_TAKEN = (errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
  """Keeps other runs out of a directory, which is made if it is not there.

  The processes of one run share it. Raises ValueError on all of them, with host, process and since
  when, if another run has it; OSError where it can't be written to.
  """
  refused = ""
  with contextlib.ExitStack() as stack:
    if jax.process_index() == 0:
      try:
        stack.enter_context((_signed if is_bucket(workdir) else _locked)(workdir))
      except (ValueError, OSError) as error:
        if jax.process_count() == 1:
          raise
        refused = in_one_line(error)
    if refused := processes.from_first(refused):
      raise ValueError(refused)
    yield


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
  _check_name(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / "lock"
  with _opened(path) as file:
    file.truncate(0)
    file.write(json.dumps(_own()))
    file.flush()
    try:
      yield
    finally:
      path.unlink(missing_ok=True)


def _check_name(workdir: pathlib.Path) -> None:
  """ValueError for what no directory should be made of."""
  try:
    str(workdir).encode()
  except UnicodeEncodeError as error:
    raise ValueError(f"the name of --workdir={str(workdir)!a} is no UTF-8: take another") from error
  if re.match(r"\w+:/", str(workdir)):
    raise ValueError(f"--workdir={workdir} must be a directory or gs://BUCKET/FOLDER: mount others")


@contextlib.contextmanager
def _signed(workdir: pathlib.Path) -> Iterator[None]:
  """In a bucket: says whose it is, which is all that can be done there."""
  path = workdir / "lock"
  with named(workdir):
    _check_holder(path, path.read_text() if path.exists() else "", is_locked=False)
    write_text(path, json.dumps(_own()))
  try:
    yield
  finally:
    with contextlib.suppress(OSError), named(workdir):  # one that is left blocks nobody
      path.unlink(missing_ok=True)


def _opened(path: pathlib.Path) -> IO[str]:
  """The file with the system's lock on it, which closing it gives back."""
  while True:
    file = path.open("a+")
    try:
      fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      with file:
        file.seek(0)
        _check_holder(path, file.read(), is_locked=error.errno in _TAKEN)
      file = path.open("a+")
    if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
      return file
    file.close()  # its run ended, and took its name away, just before it was locked here


def _check_holder(path: pathlib.Path, text: str, is_locked: bool) -> None:
  """ValueError unless, on a file system without locks, the holder is not known to be there."""
  try:
    holder = json.loads(text)
    where, number, since = holder["host"], int(holder["process"]), holder["since"]
    said = f"process {number} on {where}, since {since}"
  except (ValueError, KeyError, TypeError):
    where, number, said = None, 0, "a process that has not said its name"
  if is_locked or (where == socket.gethostname() and _is_running(number)):
    raise ValueError(
      f"{path.parent} is in use by another run: {said}. Wait for it, stop it, or take another "
      "--workdir"
    )
  logging.warning(
    "the storage of %s has no locks: see to it that no other run is there%s",
    path.parent,
    f"; the last to say so was {said}" if where else "",
  )


def _own() -> dict[str, Any]:
  since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
  return {"host": socket.gethostname(), "process": os.getpid(), "since": since}


def _is_running(number: int) -> bool:
  """Whether there is such another process: in a container that was started again the numbers are
  those of before."""
  if number == os.getpid():
    return False
  try:
    os.kill(number, 0)
  except ProcessLookupError:
    return False
  except PermissionError:  # it is somebody else's
    return True
  return True
