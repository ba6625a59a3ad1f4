"""Compiled programs, kept on disk so that the next start need not compile them again.

JAX does the keeping: an entry is looked up by program, device, versions and compiler flags; one
that can't be read or written is a warning, and the program is compiled.
"""

import logging
import os
import pathlib
import tempfile

import jax
from jax.experimental.compilation_cache import compilation_cache

from semiseg_jax.backend import platform
from semiseg_jax.paths import cache_folder, local_path

NONE = ("none", "")


def keep_programs(where: str) -> None:
  """From now on this process's programs are kept in a folder on this machine, and taken from there.

  where: "auto", $JAX_COMPILATION_CACHE_DIR if that is set, or else the user's cache folder on
  accelerators and nowhere on the CPU; "none"; or the folder. One that can't be written is a
  warning. Asks for the devices, so processes have to be joined. Raises ValueError for a bucket.
  """
  if where == "auto":
    if jax.config.jax_compilation_cache_dir or platform() == "cpu":
      return
    folder = cache_folder() / "programs"
  elif where not in NONE:
    try:
      folder = local_path(where)
    except ValueError as error:
      raise ValueError(f"config.training.compile_cache: {error}") from error
  if where in NONE or not _is_writable(folder):
    jax.config.update("jax_enable_compilation_cache", False)
  else:
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
      jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # many short ones add up
  compilation_cache.reset_cache()  # JAX looks at these once, and something may be compiled already


def folder_in_use() -> str | None:
  """Where programs are kept."""
  is_on = jax.config.jax_enable_compilation_cache
  return jax.config.jax_compilation_cache_dir if is_on else None


def _is_writable(folder: pathlib.Path) -> bool:
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      return True
  except OSError as error:
    logging.warning("compiled programs are not kept for the next start: %s", error)
    return False
