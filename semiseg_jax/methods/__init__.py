"""One file per method; each names its class `Method`."""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from semiseg_jax import contract


def names() -> list[str]:
  """The methods there are."""
  return sorted(module.name for module in pkgutil.iter_modules(__path__))


def make_method(config: Mapping[str, Any]) -> contract.Method:
  """The method called config["name"], with the other keys as its hyper-parameters.

  Raises ValueError for an unknown name or key, naming the nearest one, and for a value of a type
  other than its default's.
  """
  values = dict(config)
  name = values.pop("name")
  if name not in names():
    raise ValueError(f"config.method.name={name!r}: {_nearest(name, names())}")
  method = importlib.import_module(f"{__name__}.{name}").Method
  known = list(method.__dataclass_fields__)
  for key in values:
    if key not in known:
      raise ValueError(f"config.method.{key} is no key of method {name!r}: {_nearest(key, known)}")
    _check_type(key, values[key], method.__dataclass_fields__[key].default)
  return method(**values)


def _check_type(key: str, value: Any, default: Any) -> None:
  if value is None or default is None:
    return
  kinds = (int, float) if isinstance(default, float) else type(default)
  if isinstance(default, tuple):
    kinds = (tuple, list)
  if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
    raise ValueError(f"config.method.{key}={value!r} should be like its default, {default!r}")


def _nearest(word: str, known: list[str]) -> str:
  close = difflib.get_close_matches(word, known, n=1)
  return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"
