"""What dataset.toml says of a folder of images and masks (see `input.folder`)."""

import pathlib
import tomllib
from typing import Annotated, Any

from semiseg_jax.input.text import read_text
from semiseg_jax.values import Range, Such, check

DIRECTORIES = ("train_images", "train_masks", "val_images", "val_masks")
_Level = Annotated[int, Range(0, 255)]
_Color = tuple[_Level, _Level, _Level]


def are_different(names: list[str]) -> bool:
  return len(names) > 0 and len(set(names)) == len(names)


_KINDS = {
  "class_names": Annotated[tuple[str, ...], Such("different names", are_different)],
  "ignore_index": int,
  "values": Annotated[dict, Such('like {0 = "background", 255 = "lesion"}', bool)],
  "palette": tuple[_Color, ...],
  "ignore_color": _Color,
  **dict.fromkeys(DIRECTORIES, str),
}


def read_settings(root: pathlib.Path) -> dict[str, Any]:
  """dataset.toml as a dict ({} without one); where it has values {id: name} but no class_names,
  these are the values' names in their order.

  Raises FileNotFoundError if root is no directory and ValueError for what makes no sense.
  """
  if not root.is_dir():
    raise FileNotFoundError(f"{root} is not a directory; root must hold the images and masks")
  path = root / "dataset.toml"
  if not path.exists():
    return {}
  try:
    settings = tomllib.loads(read_text(path))
  except tomllib.TOMLDecodeError as error:
    raise ValueError(f"{path}: {error}") from error
  if unknown := sorted(set(settings) - set(_KINDS)):
    raise ValueError(f"{path}: unknown keys {unknown}; known are {list(_KINDS)}")
  for key, value in settings.items():
    check(f"{path}: {key}", value, _KINDS[key])
  if "values" in settings:
    settings["values"] = _values(settings["values"], path)
    settings.setdefault("class_names", list(dict.fromkeys(settings["values"].values())))
  return settings


def _values(table: dict[str, Any], path: pathlib.Path) -> dict[int, str]:
  """{id: name}, of which TOML's keys are texts."""
  for key, name in table.items():
    if not (key.isdecimal() and int(key) < 256):
      raise ValueError(f"{path}: values has {key!r} where an id from 0 to 255 should stand")
    check(f"{path}: values.{key}", name, str)
  return {int(key): name for key, name in table.items()}
