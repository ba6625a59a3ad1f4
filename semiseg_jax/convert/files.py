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

from semiseg_jax.convert.formats import SAFETENSORS, format_of
from semiseg_jax.runtime.errors import first_line

_ABOUT = "semiseg_jax"  # our entry in the header of a .safetensors file
_EXTRAS = {"torch": "convert", "safetensors": "hub"}  # each package's, the lighter one of two
_AGAIN = "download or copy it again, and compare the sizes"


class StateFile(NamedTuple):
  """content: all that is in the file, its tensors as arrays, in mappings as they were; about: what
  our own files say of their network."""

  content: dict[str, Any]
  about: dict[str, Any]


def read(path: pathlib.Path) -> StateFile:
  """Raises ValueError for a file that is damaged, no state dict, or holds more than data."""
  if format_of(path) == SAFETENSORS:
    return _read_safetensors(path)
  content = _read_torch(path)
  if not isinstance(content, Mapping):
    raise ValueError(f"{path} holds a {type(content).__name__}, no state dict: save that alone")
  try:
    return StateFile(_with_arrays(content, path), {})
  except RecursionError as error:
    raise ValueError(f"{path} is refused: what it holds contains itself") from error


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


def _read_safetensors(path: pathlib.Path) -> StateFile:
  safetensors = needed("safetensors")
  try:
    with safetensors.safe_open(path, framework="np") as file:
      tensors = {key: _plain(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
      header = file.metadata() or {}
    about = json.loads(header.get(_ABOUT, "{}"))
  except (safetensors.SafetensorError, OSError, TypeError, AttributeError, ValueError) as error:
    raise ValueError(
      f"{path} can't be read as safetensors ({first_line(error)}): {_AGAIN}"
    ) from error
  return StateFile(tensors, about if isinstance(about, dict) else {})


def _read_torch(path: pathlib.Path) -> Any:
  torch = needed("torch")
  try:
    with torch.serialization.safe_globals(_numpy_scalars()), open(path, "rb") as file:
      return torch.load(file, map_location="cpu", weights_only=True)  # a name's end tells nothing
  except pickle.UnpicklingError as error:  # its first line is advice to run whatever is inside
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    what = f"it asks for {found[1]}" if found else "it holds something else"
    raise ValueError(
      f"{path} is refused: only files of tensors and plain values are read, and {what}. Nothing of "
      "it was run. If you trust it, load it in PyTorch and save its state dict alone"
    ) from error
  except (RuntimeError, EOFError, OSError, ValueError, KeyError, RecursionError) as error:
    raise ValueError(f"{path} is damaged ({first_line(error)}): {_AGAIN}") from error


def _numpy_scalars() -> list[Any]:
  """What the pickle of a number of numpy's asks for; it was called differently before numpy 2."""
  scalar, *_ = np.float64(0).__reduce__()
  names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
  return [*names, np.dtype, *(type(np.dtype(kind)) for kind in "?bhilqBHILQefdgFDU")]


def _with_arrays(content: Mapping[str, Any], path: pathlib.Path) -> dict[str, Any]:
  """The same with names for keys and arrays for tensors, in mappings of any depth."""
  kind, found = needed("torch").Tensor, {}
  for key, x in content.items():
    if isinstance(x, Mapping):
      found[str(key)] = _with_arrays(x, path)
    elif isinstance(x, kind):
      try:
        found[str(key)] = (x.float() if x.is_floating_point() else x).detach().numpy()
      except (RuntimeError, TypeError) as error:
        raise ValueError(
          f"{path}: {key} is a tensor of the kind {x.dtype}, {x.layout} on {x.device}, which is no "
          "plain array: save the network as it was before"
        ) from error
    else:
      found[str(key)] = x
  return found


def _plain(array: np.ndarray) -> np.ndarray:
  """Floating point of any width as float32, which is what networks here are made of."""
  return array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float32, copy=False)
