"""Semi-supervised semantic segmentation in JAX; `load(path)` opens a trained network."""

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
  if name != "load":
    raise AttributeError(f"module 'semiseg_jax' has no attribute {name!r}")
  from semiseg_jax.trained.model import load  # with jax and all: whoever wants less gets less

  return load
