"""Parts of a network that its original keeps in a second file beside the first."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from semiseg_jax.convert import files, wrappers
from semiseg_jax.convert.family import Family


def second(path: pathlib.Path) -> pathlib.Path:
  """The second file's path, as C3-SemiSeg names it."""
  is_best = path.stem == "best_model"
  return path.with_stem("best_embedding_module" if is_best else f"{path.stem}-embedding-module")


def read(family: Family, path: pathlib.Path) -> dict[str, np.ndarray]:
  """The second file's tensors behind the family's prefix, none without such a file.

  Raises ValueError for another file in its place.
  """
  if not family.apart or not second(path).is_file():
    return {}
  found = wrappers.networks_in(files.read(second(path)).content, _is_second)
  if len(found) != 1:
    raise ValueError(f"{second(path)} holds no projection head, which belongs beside {path.name}")
  (head,) = found.values()
  return {family.apart + key: x for key, x in head.tensors.items()}


def _is_second(tensors: Mapping[str, np.ndarray]) -> bool:
  return any(key.startswith("emb_1.") for key in tensors)


def write(
  family: Family, path: pathlib.Path, tensors: Mapping[str, np.ndarray], about: dict[str, Any]
) -> None:
  """`files.write`, of two files if the family has tensors of both."""
  keys = [key for key in tensors if family.apart and key.startswith(family.apart)]
  files.write(path, {key: x for key, x in tensors.items() if key not in keys}, about)
  if keys:
    files.write(second(path), {k.removeprefix(family.apart): tensors[k] for k in keys}, about)
