"""What the fields of a config may hold, said by their types: `num_queries: Count = 256`.

A type is one of Python's, with a mark beside it where not every value of it will do.
"""

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

INT32, FLOAT32 = 2**31 - 1, 3.4e38  # the largest that a device counts and computes with


@dataclasses.dataclass(frozen=True)
class Range:
  """A mark of numbers: the ends belong to it, unless it is an open range."""

  least: float
  most: float = INT32
  open_least: bool = False
  open_most: bool = False

  def __call__(self, value: Any, complaint: str) -> str:
    if complaint:
      return complaint
    if value < self.least or (self.open_least and value == self.least):
      return f" must be {'above' if self.open_least else 'at least'} {self.least:g}"
    if value > self.most or (self.open_most and value == self.most):
      return f" must be {'below' if self.open_most else 'at most'} {_short(self.most)}"
    return ""


@dataclasses.dataclass(frozen=True)
class Such:
  """A mark of anything else: in words, and what has to hold of values of the type beside it."""

  text: str
  holds: Callable[[Any], bool]

  def __call__(self, value: Any, complaint: str) -> str:
    return f" must be {self.text}" if complaint or not self.holds(value) else ""


def is_odd(number: int) -> bool:
  return number % 2 == 1


def is_rising(pair: tuple[float, float]) -> bool:
  return pair[0] <= pair[1]


def are_different_names(text: str) -> bool:
  """Of "sky,road" whether no name is empty or there twice."""
  names = split_names(text)
  return all(names) and len(set(names)) == len(names)


def split_names(text: str) -> list[str]:
  """The names that commas stand between."""
  return [name.strip() for name in text.split(",")]


Count = Annotated[int, Range(1)]
Batch = Annotated[int, Range(1, 65_536)]  # images at a time
Channels = Annotated[int, Range(1, 65_536)]
Side = Annotated[int, Range(1, 65_535)]  # in pixels
CountFrom0 = Annotated[int, Range(0)]
Steps = Annotated[int, Range(1), "steps"]  # counted in steps: see `training.batch.scale_batch`
StepsFrom0 = Annotated[int, Range(0), "steps"]
Positive = Annotated[float, Range(0, FLOAT32, open_least=True)]
NotNegative = Annotated[float, Range(0, FLOAT32)]
Share = Annotated[float, Range(0, 1)]  # or a probability
Momentum = Annotated[float, Range(0, 1, open_most=True)]
Size = Annotated[tuple[Side, Side], Such("a height and a width of at least 1, as (321, 321)", bool)]
Factor = Annotated[float, Range(0, 100, open_least=True)]  # of a size
Interval = Annotated[
  tuple[Factor, Factor], Such("two numbers above 0, the smaller first, at most 100", is_rising)
]
Scales = Annotated[
  tuple[Factor, ...], Such("one or more numbers above 0, at most 100, as (0.5, 1.0)", bool)
]
OddSide = Annotated[int, Range(1, 999), Such("an odd number from 1 to 999", is_odd)]
Names = Annotated[str, Such("different names with commas between them", are_different_names)]


def check(key: str, value: Any, kind: Any) -> None:
  """ValueError, naming the key, for a value that is none of this type."""
  if complaint := _complaint(value, kind):
    raise ValueError(f"{key}={value!r}{complaint}")


def check_fields(made: Any) -> None:
  """The same of every field of a dataclass that was made without `fields.make`."""
  for name, kind in types_of(type(made)).items():
    check(name, getattr(made, name), kind)


def types_of(kind: type) -> dict[str, Any]:
  """The types of a dataclass's fields, marks and all."""
  hints = typing.get_type_hints(kind, include_extras=True)
  return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def is_in_steps(kind: Any) -> bool:
  """Whether a field of this type counts steps."""
  return any(
    "steps" in getattr(part, "__metadata__", ()) for part in (kind, *typing.get_args(kind))
  )


def plain(kind: Any) -> type:
  """The class of what a field of this type holds, where it isn't None."""
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin is Literal:
    return type(args[0])
  return plain(args[0]) if origin in (Annotated, typing.Union, types.UnionType) else origin or kind


def _complaint(value: Any, kind: Any) -> str:
  """What stands behind "key=value" in the error; "" of a value that is right."""
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin is Annotated:
    complaint = _complaint(value, args[0])
    for mark in filter(callable, kind.__metadata__):
      complaint = mark(value, complaint)
    return complaint
  if origin in (typing.Union, types.UnionType):
    complaints = [_complaint(value, part) for part in args]
    return complaints[0] + ", or None" if all(complaints) else ""
  if origin is Literal:
    is_one = any(value == one and type(value) is type(one) for one in args)
    return "" if is_one else f": choose from {', '.join(map(repr, args))}"
  if origin is tuple:
    return _complaint_of_items(value, args)
  return "" if _is_a(value, kind) else _WORDS.get(kind, f" must be a {kind.__name__}")


def _complaint_of_items(value: Any, kinds: tuple) -> str:
  if not isinstance(value, tuple | list):
    return _WORDS[tuple]
  if kinds[-1:] == (...,):
    kinds = kinds[:1] * len(value)
  if len(kinds) != len(value):
    return f" must have {len(kinds)} values"
  return next(filter(None, map(_complaint, value, kinds)), "")


_WORDS = {
  bool: " must be True or False",
  int: " must be a whole number",
  float: " must be a number",
  str: " must be a text that is not empty",
  tuple: " must be several values with commas between them, in brackets",
  types.NoneType: " must be None",
}


def _is_a(value: Any, kind: type) -> bool:
  if kind is float:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= FLOAT32
  if kind is int:
    return isinstance(value, int) and not isinstance(value, bool)
  if kind is str:
    return isinstance(value, str) and value != ""
  return isinstance(value, tuple | list if kind is tuple else kind)


def _short(number: float) -> str:
  return str(number) if isinstance(number, int) else f"{number:g}"
