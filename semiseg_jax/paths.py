"""Paths as people type them."""

import os
import pathlib


def printable(path: str | os.PathLike) -> str:
  """The path as text, with a mark for what is no text in it: a file system takes any bytes."""
  return os.fsencode(path).decode(errors="replace")


def user_path(path: str | os.PathLike) -> pathlib.Path:
  """The path with ~ or ~NAME for a home directory, as in a shell; an unknown NAME stays."""
  return pathlib.Path(os.path.expanduser(path))
