"""A network as a folder for a model hub, and back.

config.json          what the network is: model, class_names, palette, how it was trained
model.safetensors    its arrays under our own names, in PyTorch's layout
README.md            the card, which people read
"""

import pathlib
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from semiseg_jax.convert import families, files, hub
from semiseg_jax.convert.assign import A_COUNTER, assign, tensors_of
from semiseg_jax.convert.card import make_card
from semiseg_jax.convert.weights import check_finite, completed
from semiseg_jax.files import read_json, write_json, write_text
from semiseg_jax.models.network import Variables
from semiseg_jax.runtime.errors import first_line

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD)
_LIBRARY = "semiseg_jax"
_KNOWN = {  # what must be there to use it
  "model": dict,
  "model.name": str,
  "model.num_classes": int,
  "class_names": list,
  "palette": list,
}
_UNTRAINED = {"network": "student", "step": 0}  # unless told otherwise
# what a checkpoint says, but for where it came from
_KEPT = ("network", "step", "score", "model", "class_names", "palette")


def check_free(directory: pathlib.Path) -> None:
  """ValueError where writing would go over something, such as the config.json of a run."""
  for name in (*FILES, "best"):
    if (directory / name).exists():
      raise ValueError(f"{directory} holds {name} already: name another directory for --hub")


def write(
  directory: pathlib.Path,
  variables: Variables,
  about: dict[str, Any],
  run: dict[str, Any],
  repo: str | None = None,
) -> None:
  """The three files.

  about: model, class_names, palette and what else a checkpoint says. run: of `run_of`. repo:
  ORG/REPO, for the card. Raises ValueError as `check_free`, ImportError without safetensors.
  """
  check_free(directory)
  config = {"library_name": _LIBRARY, **_UNTRAINED}
  config |= {key: about[key] for key in _KEPT if key in about}
  config |= {key: run[key] for key in ("method", "data") if key in run}
  files.write(directory / WEIGHTS, tensors_of(families.OWN, variables), config)
  write_json(directory / CONFIG, config)
  write_text(directory / CARD, make_card(config, run, repo))


def run_of(workdir: pathlib.Path) -> dict[str, Any]:
  """What a working directory says of its training: method, data (its name alone), result
  and evaluation; each where there is one. Raises ValueError for a damaged file."""
  config = _read_json(workdir / "config.json")
  found = {
    "method": config.get("method"),
    "data": {key: x for key, x in config.get("data", {}).items() if key == "name" and x},
    "result": _read_json(workdir / "result.json"),
    "evaluation": _read_json(workdir / "evaluation.json"),
  }
  return {key: value for key, value in found.items() if value}


def is_folder(path: pathlib.Path) -> bool:
  """Whether it is such a folder, and no working directory."""
  is_there = all((path / name).is_file() for name in (CONFIG, WEIGHTS))
  return is_there and not (path / "best").is_dir()


def read_about(reference: str) -> dict[str, Any]:
  """config.json of a folder or "hf://ORG/REPO"; ValueError if it is not of this package."""
  config = _read_json(hub.fetch(f"{reference.rstrip('/')}/{CONFIG}"))
  where = f"{reference}: {CONFIG}"
  flat = flatten_dict(config, sep=".") | config
  if lacking := [key for key, kind in _KNOWN.items() if not isinstance(flat.get(key), kind)]:
    raise ValueError(
      f"{where} doesn't say {', '.join(lacking)}: it is no network of {_LIBRARY}, or was changed"
    )
  try:
    completed(config["model"])
  except (ValueError, TypeError, KeyError) as error:
    raise ValueError(f"{where} describes no network: {first_line(error)}") from error
  classes, names, palette = flat["model.num_classes"], config["class_names"], config["palette"]
  if not classes == len(names) == len(palette):
    raise ValueError(
      f"{where} has {len(names)} class_names and {len(palette)} colours for a network of {classes} "
      "classes"
    )
  if not all(isinstance(name, str) for name in names) or not all(map(_is_color, palette)):
    raise ValueError(f"{where}: class_names should be texts, palette a list such as [[0, 0, 255]]")
  return _UNTRAINED | config


def read_variables(reference: str, fresh: Variables) -> Variables:
  """The arrays of the same place for a network that config.json describes.

  Raises ValueError if they are of another one or no numbers.
  """
  content, _ = files.read(hub.fetch(f"{reference.rstrip('/')}/{WEIGHTS}"))
  tensors = {key: x for key, x in content.items() if isinstance(x, np.ndarray)}
  check_finite(tensors, f"{reference}: {WEIGHTS}")
  try:
    variables, report = assign(families.OWN, tensors, fresh)
  except ValueError as error:
    raise ValueError(f"{reference}: {WEIGHTS} doesn't fit {CONFIG}: {error}") from error
  strange = [key for key, _, why in report.left if why != A_COUNTER]
  if wrong := [name for name, _ in report.fresh] + strange:
    raise ValueError(
      f"{reference}: {WEIGHTS} doesn't fit {CONFIG}: {wrong[0]} is in one of them alone"
    )
  return variables


def _is_color(color: Any) -> bool:
  is_level = lambda x: type(x) is int and 0 <= x <= 255
  return isinstance(color, list) and len(color) == 3 and all(map(is_level, color))


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  """{} where there is no file; raises as `read_json` does."""
  return read_json(path, "restore it") if path.is_file() else {}
