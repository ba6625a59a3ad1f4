"""One file per method; each names its class `Method`."""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from semiseg_jax import contract, fields

METHODS: dict[str, type[contract.Method]] = {
  module.name: importlib.import_module(f"{__name__}.{module.name}").Method
  for module in pkgutil.iter_modules(__path__)
}


def make_method(config: Mapping[str, Any]) -> contract.Method:
  """The method called config["name"], with the other keys as its hyper-parameters.

  Raises ValueError for an unknown name or key, naming the nearest one, and for a value of a type
  other than its default's.
  """
  return fields.make_chosen(METHODS, "config.method", config)
