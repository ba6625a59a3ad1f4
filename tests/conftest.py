"""Eight virtual CPU devices stand for a pod in every test; programs compile fast, not for speed.

Compiled programs are kept in .pytest_cache, so that runs of the same thing share them.
"""

import os
import pathlib

_FLAGS = (
  "--xla_force_host_platform_device_count=8",
  "--xla_backend_optimization_level=0",
  "--xla_llvm_disable_expensive_passes=true",
)
_PROGRAMS = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "programs"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_PROGRAMS))
os.environ["XLA_FLAGS"] = " ".join([*_FLAGS, os.environ.get("XLA_FLAGS", "")])  # the last one wins
