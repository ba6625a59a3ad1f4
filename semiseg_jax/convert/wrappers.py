"""The networks in what a trainer saved: under prefixes, in nested mappings, beside one another.

A network is the outermost place whose keys a family knows; what stands around it, `module.`,
`_orig_mod.`, `state_dict`, `teacher` and whatever else, is no more than its name.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

_OF_AVERAGES = {"teacher", "ema"}  # words in the names of networks that follow another
STUDENT, TEACHER = "student", "teacher"
_HOW_TO_SAY = "say which by --which=NAME, in a run by --config.model.which=NAME"

IsNetwork = Callable[[Mapping[str, np.ndarray]], bool]


class Found(NamedTuple):
  """tensors: {key: array} of a network; beside: what else the file holds, by name."""

  tensors: dict[str, np.ndarray]
  beside: dict[str, Any]


def networks_in(
  content: Mapping[str, Any], is_network: IsNetwork, beside: Mapping[str, Any] | None = None
) -> dict[str, Found]:
  """{name: network} of each place whose tensors are one; the name of the whole is "".

  A key "a.b" lies in the place "a", as "b" of a mapping "a" does.
  """
  beside = beside or {}
  tensors = {key: x for key, x in content.items() if isinstance(x, np.ndarray)}
  if tensors and is_network(tensors):
    others = {key: x for key, x in content.items() if key not in tensors}
    return {"": Found(tensors, {**beside, **others})}
  found = {}
  places = _places(content)
  for name, inner in places.items():
    if isinstance(inner, Mapping):
      others = {key: x for key, x in places.items() if key != name}
      for rest, network in networks_in(inner, is_network, {**beside, **others}).items():
        found[f"{name}.{rest}".rstrip(".")] = network
  return found


def choose(found: Mapping[str, Found], which: str | None) -> str:
  """The name of the one that is meant.

  which: a name, a part of one, or "student" or "teacher"; None: the only one, or the only student.
  A teacher is one whose name has the word teacher or ema in it, a student any other. Raises
  ValueError for none or several.
  """
  if which is None:
    chosen = list(found) if len(found) == 1 else _of_role(found, STUDENT)
  else:
    chosen = [name for name in found if which in (name, *name.split("."))]
    chosen = chosen or _of_role(found, which)
  if len(chosen) == 1:
    return chosen[0]
  there = ", ".join(name or "one without a name" for name in found)
  if which is None:
    raise ValueError(f"it holds several networks, {there}: {_HOW_TO_SAY}")
  many = "several networks" if chosen else "no network"
  raise ValueError(f"it holds {many} called {which}, but {there}: {_HOW_TO_SAY}")


def _of_role(names: Mapping[str, Any], role: str) -> list[str]:
  is_average = lambda name: bool(_OF_AVERAGES & set(re.split(r"[^a-z]+", name.lower())))
  return [name for name in names if role == (TEACHER if is_average(name) else STUDENT)]


def _places(content: Mapping[str, Any]) -> dict[str, Any]:
  """The same, with tensors "a.b" as {"a": {"b": tensor}}."""
  places, groups = {}, {}
  for key, x in content.items():
    first, dot, rest = key.partition(".")
    if dot and isinstance(x, np.ndarray):
      groups.setdefault(first, {})[rest] = x
    else:
      places[key] = x
  for first, group in groups.items():
    inner = places.get(first)
    places[first] = {**inner, **group} if isinstance(inner, Mapping) else group
  return places
