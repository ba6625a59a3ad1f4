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

  Raises ValueError for an unknown name or key, naming the nearest one.
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
  return method(**values)


def _nearest(word: str, known: list[str]) -> str:
  close = difflib.get_close_matches(word, known, n=1)
  return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"
