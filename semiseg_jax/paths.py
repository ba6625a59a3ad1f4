"""Paths as people type them."""

import os
import pathlib


def user_path(path: str | os.PathLike) -> pathlib.Path:
  """The path with ~ or ~NAME for a home directory, as in a shell; an unknown NAME stays."""
  return pathlib.Path(os.path.expanduser(path))
