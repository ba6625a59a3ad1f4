"""State dicts in files: .safetensors, and PyTorch's own, of which nothing is ever executed."""

import importlib
import json
import pathlib
import pickle
import re
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from semiseg_jax.runtime.errors import first_line

_WRAPPERS = ("state_dict", "model", "model_state_dict", "network", "net")
_ABOUT = "semiseg_jax"  # our entry in the header of a .safetensors file
_EXTRAS = {"torch": "convert", "safetensors": "hub"}  # each package's, the lighter one of two
_TORCH_SUFFIXES = (".pth", ".pt", ".pkl", ".tar", ".bin", ".ckpt")


class StateFile(NamedTuple):
  """tensors: {key: array} without wrappers and prefixes; extra: what else the file holds."""

  tensors: dict[str, np.ndarray]
  extra: dict[str, Any]


def read(path: pathlib.Path) -> StateFile:
  """Raises ValueError for a file that is damaged, no state dict, or holds more than data."""
  if path.suffix == ".safetensors":
    tensors, extra = _read_safetensors(path)
  elif path.suffix in _TORCH_SUFFIXES:
    tensors, extra = _unwrap(_read_torch(path), path)
  else:
    known = ", ".join((".safetensors", *_TORCH_SUFFIXES))
    raise ValueError(f"{path} is no file of weights: its name should end in one of {known}")
  while tensors and all(key.startswith("module.") for key in tensors):
    tensors = {key.removeprefix("module."): x for key, x in tensors.items()}
  return StateFile(tensors, extra)


def write(path: pathlib.Path, tensors: Mapping[str, np.ndarray], about: dict[str, Any]) -> None:
  """A bare state dict: .safetensors, which also says what it is, or PyTorch's format."""
  tensors = {key: np.asarray(x, order="C") for key, x in tensors.items()}
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(path.name + ".part")
  if path.suffix == ".safetensors":
    header = {"format": "pt", _ABOUT: json.dumps(about)}
    needed("safetensors.numpy").save_file(tensors, part, header)
  elif path.suffix in (".pth", ".pt"):
    torch = needed("torch")
    torch.save({key: torch.from_numpy(x) for key, x in tensors.items()}, part)
  else:
    raise ValueError(f"{path} should end in .pth, .pt or .safetensors")
  part.replace(path)


def needed(package: str) -> types.ModuleType:
  """What reads or writes a kind of file; ImportError with what to do if it isn't there."""
  try:
    return importlib.import_module(package)
  except ImportError as error:
    name = package.partition(".")[0]
    raise ImportError(
      f"this file needs {name}: pip install 'semiseg_jax[{_EXTRAS[name]}]'"
    ) from error


def _read_safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  safetensors = needed("safetensors")
  try:
    with safetensors.safe_open(path, framework="np") as file:
      tensors = {key: _plain(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
      header = file.metadata() or {}
  except (safetensors.SafetensorError, OSError, TypeError, AttributeError) as error:
    raise ValueError(f"{path} can't be read as safetensors: {error}") from error
  return tensors, {"about": json.loads(header[_ABOUT])} if _ABOUT in header else {}


def _read_torch(path: pathlib.Path) -> Any:
  torch = needed("torch")
  try:
    return torch.load(path, map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    what = f"it asks for {found[1]}" if found else first_line(error)
    raise ValueError(
      f"{path} is refused: only files of arrays and plain values are read, and {what}. Nothing of "
      "it was run. If you trust it, load it in PyTorch and save its state dict alone"
    ) from error
  except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
    raise ValueError(f"{path} is damaged or no file of PyTorch's: {first_line(error)}") from error


def _unwrap(content: Any, path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """The state dict, at the top or under one of the usual names, and all that is beside it."""
  if not isinstance(content, Mapping):
    raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
  if tensors := _tensors(content):
    return tensors, {key: x for key, x in content.items() if key not in tensors}
  for name in _WRAPPERS:
    inner = content.get(name)
    if isinstance(inner, Mapping) and (tensors := _tensors(inner)):
      return tensors, {key: x for key, x in content.items() if key != name}
  raise ValueError(
    f"{path} holds no state dict at the top nor under {', '.join(_WRAPPERS)}, only: "
    f"{', '.join(map(str, list(content)[:8])) or 'nothing'}"
  )


def _tensors(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
  kind = needed("torch").Tensor
  found = {key: x.detach() for key, x in content.items() if isinstance(x, kind)}
  return {key: (x.float() if x.is_floating_point() else x).numpy() for key, x in found.items()}


def _plain(array: np.ndarray) -> np.ndarray:
  """Floating point of any width as float32, which is what networks here are made of."""
  return array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float32, copy=False)
