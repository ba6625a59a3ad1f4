"""What went wrong with a file, in one line that names it."""

import contextlib
from collections.abc import Iterator
from typing import Any

INTERRUPTED = 130  # the exit code of what Ctrl-C has ended, as shells have it


def in_one_line(error: BaseException) -> str:
  """Its message; of what the system refused the path and why, without a number."""
  if isinstance(error, OSError) and error.strerror and error.filename is not None:
    paths = filter(None, (error.filename, error.filename2))
    return f"{' -> '.join(map(str, paths))}: {error.strerror}"
  return str(error)


def first_line(error: BaseException) -> str:
  """What an error of another library says, at a length for people."""
  return (str(error) or type(error).__name__).splitlines()[0][:200]


@contextlib.contextmanager
def naming(path: Any) -> Iterator[None]:
  """Names this path in an OSError from inside that names none, such as of a full disk."""
  try:
    yield
  except OSError as error:
    if error.strerror and error.filename is None:
      error.filename = str(path)
    raise
