"""A frozen dataclass from a section of a config, with errors that name what was meant."""

import ast
import dataclasses
import difflib
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from ml_collections import config_dict

from semiseg_jax.values import check, plain, types_of

T = TypeVar("T")


def make(kind: type[T], section: str, name: str, values: Mapping[str, Any]) -> T:
  """kind(**values), with lists made tuples; every field of `kind` has a default.

  Raises ValueError as `check_all` does, and for what `kind` itself finds wrong.
  """
  check_all(kind, section, name, values)
  return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


def check_all(kind: type, section: str, name: str, values: Mapping[str, Any]) -> None:
  """ValueError for an unknown key, naming the nearest, and for a value that is none of its field's
  type (values.py).

  section, name: what the error calls the place, such as "config.method" and "reco".
  """
  known = types_of(kind)
  for key, value in values.items():
    if key not in known:
      raise ValueError(f"{section}.{key} is no key of {name!r}: {nearest(key, known)}")
    check(f"{section}.{key}", value, known[key])


def choose(key: str, name: str, table: Mapping[str, T]) -> T:
  """What the table has under a name that a config gives; ValueError naming the nearest one."""
  if name not in table:
    raise ValueError(f"{key}={name!r}: {nearest(name, table)}")
  return table[name]


def make_chosen(table: Mapping[str, type[T]], section: str, config: Mapping[str, Any]) -> T:
  """What the table has under config["name"], with the other keys as its fields; see `make`."""
  values = dict(config)
  name = values.pop("name", "")
  return make(choose(f"{section}.name", name, table), section, name, values)


def read_call(text: str) -> tuple[str, dict[str, Any]]:
  """("focal", {"gamma": 2.0}) of "focal(gamma=2.0)", and no fields of "focal".

  Values are literals, or words that stand for themselves. Raises ValueError for any other text.
  """
  try:
    call = ast.parse(text, mode="eval").body
    if isinstance(call, ast.Name):
      return call.id, {}
    name, given = call.func.id, {item.arg: _literal(item.value) for item in call.keywords}
    if not call.args and None not in given:
      return name, given
  except (AttributeError, SyntaxError, ValueError):
    pass
  raise ValueError(f"{text!r} is no name with fields")


def _literal(expression: ast.expr) -> Any:
  return expression.id if isinstance(expression, ast.Name) else ast.literal_eval(expression)


def nearest(word: str, known: Iterable[str]) -> str:
  """The question to ask whoever wrote `word` where one of `known` is wanted."""
  close = difflib.get_close_matches(word, known, n=1)
  return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"


def require(key: str, value: Any, allowed: Iterable) -> None:
  """ValueError unless the value of a key has one of the allowed values."""
  if value not in allowed:
    raise ValueError(f"{key}={value!r}: choose from {', '.join(map(repr, allowed))}")


def section(kind: type, leave_out: Collection[str] = ()) -> dict[str, Any]:
  """The defaults of a dataclass's fields as a ConfigDict takes them; what may be None stays so."""
  values, types = {}, types_of(kind)
  for field in dataclasses.fields(kind):
    if field.name in leave_out:
      continue
    values[field.name] = field.default
    if type(None) in typing.get_args(types[field.name]):
      own = plain(types[field.name])
      values[field.name] = config_dict.FieldReference(field.default, field_type=own)
  return values
