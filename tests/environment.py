"""Where tests run, and the processes that they start: virtual CPU devices, programs made quickly.

Importing this must not import jax, which reads its environment once.
"""

import functools
import hashlib
import importlib.util
import mmap
import os
import pathlib

DEVICES = 8  # of this process: they stand for a pod
_DEVICE_COUNT = "--xla_force_host_platform_device_count"
_FAST_COMPILATION = (  # rather than fast programs
  "--xla_backend_optimization_level=0",
  "--xla_llvm_disable_expensive_passes=true",
  "--xla_cpu_use_fusion_emitters=false",
)
_ROOT = pathlib.Path(__file__).parents[1]
_PROGRAMS = _ROOT / ".pytest_cache" / "programs"


def enter() -> None:
  """Makes this process such a place; XLA_FLAGS that are set already have the last word."""
  flags, given = xla_flags(DEVICES), os.environ.get("XLA_FLAGS", "")
  if not given.startswith(flags):  # as in the workers of pytest-xdist, which inherit them
    os.environ["XLA_FLAGS"] = f"{flags} {given}".rstrip()
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  # whoever runs the same thing again, in whichever process, shares what was compiled
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_PROGRAMS))
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
  # a third of the time of tracing and lowering goes into where each operation comes from
  os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")


@functools.cache
def data_directory() -> pathlib.Path:
  """For prepared data, which all tests share until the code that prepares it changes."""
  folder = _ROOT / "data"
  code = sorted(
    path for kind in ("*.py", "toy_scenes/*.py", "toy_scenes/*.tsv") for path in folder.glob(kind)
  ) + [_ROOT / "tests" / "toy.py"]
  digest = hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()
  return _ROOT / ".pytest_cache" / "data" / digest[:16]


@functools.cache
def xla_flags(devices: int) -> str:
  """XLA_FLAGS for so many devices, without those that this jaxlib lacks: they would abort it."""
  return " ".join([f"{_DEVICE_COUNT}={devices}", *filter(is_known, _FAST_COMPILATION)])


@functools.cache
def is_known(flag: str) -> bool:
  """Whether the name of a flag, such as "--xla_dump_to=...", stands in jaxlib's libraries."""
  name = flag.removeprefix("--").partition("=")[0].encode() + b"\0"
  folder = pathlib.Path(importlib.util.find_spec("jaxlib").origin).parent
  return any(_holds(path, name) for path in folder.glob("*.so"))


def _holds(path: pathlib.Path, text: bytes) -> bool:
  with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
    return content.find(text) >= 0
