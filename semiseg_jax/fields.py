"""A frozen dataclass from a section of a config, with errors that name what was meant."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def make(kind: type[T], section: str, name: str, values: Mapping[str, Any]) -> T:
  """kind(**values), with lists made tuples; every field of `kind` has a default.

  section, name: what the error calls the place, such as "config.method" and "reco".
  Raises ValueError for an unknown key, naming the nearest, and for a value of a type other than its
  default's.
  """
  known = kind.__dataclass_fields__
  values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
  for key, value in values.items():
    if key not in known:
      raise ValueError(f"{section}.{key} is no key of {name!r}: {nearest(key, known)}")
    _check_type(f"{section}.{key}", value, known[key].default)
  return kind(**values)


def nearest(word: str, known: Iterable[str]) -> str:
  """The question to ask whoever wrote `word` where one of `known` is wanted."""
  close = difflib.get_close_matches(word, known, n=1)
  return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"


def _check_type(key: str, value: Any, default: Any) -> None:
  if value is None or default is None:
    return
  kinds = (int, float) if isinstance(default, float) else type(default)
  if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
    raise ValueError(f"{key}={value!r} should be like its default, {default!r}")
