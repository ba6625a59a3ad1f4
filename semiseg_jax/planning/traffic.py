"""What a compiled step sends between devices, read from its program."""

import functools
import math
import re
from typing import NamedTuple

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
# ENTRY, name and lines of a computation
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \([^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.\-]+ = (.+?) ([a-z][a-z0-9\-]*)\(")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_SHAPE = re.compile(r"\b(pred|token|[a-z]+(\d+)\w*)\[([\d,]*)\]")


class Collective(NamedTuple):
  """How often an operation runs in a step, and the bytes of its results on one device."""

  count: int
  size: int


Traffic = dict[str, Collective]


def traffic(program: str) -> Traffic:
  """The collectives of one execution of an optimised HLO module, by kind.

  What a loop contains counts as often as it turns (once if that is not known), and of a choice
  the branch that sends most.
  """
  computations = _COMPUTATION.findall(program)
  bodies = {"ENTRY" if entry else name: lines.splitlines() for entry, name, lines in computations}

  @functools.cache
  def of(name: str) -> Traffic:
    total: Traffic = {}
    for line in bodies.get(name, []):
      _add(total, _own(line))
      called = _CALLED.findall(line)
      if " conditional(" in line:
        if match := _BRANCHES.search(line):
          called = [branch.strip().lstrip("%") for branch in match[1].split(",")]
        _add(total, max(map(of, called), key=total_size))
      else:
        turns = int(match[1]) if (match := _TRIPS.search(line)) else 1
        for inner in called:
          _add(total, of(inner), turns)
    return total

  return of("ENTRY")


def total_size(found: Traffic) -> int:
  """Bytes of all kinds together."""
  return sum(collective.size for collective in found.values())


def _own(line: str) -> Traffic:
  match = _INSTRUCTION.match(line)
  if not match:
    return {}
  kind, is_start = match[2].removesuffix("-start"), match[2].endswith("-start")
  if kind not in _KINDS:
    return {}
  sizes = [_size(*shape) for shape in _SHAPE.findall(match[1])]
  if is_start and kind in ("all-gather", "collective-permute"):
    sizes = sizes[1:2]  # of (operand, result, ...)
  return {kind: Collective(1, sum(sizes))}


def _size(name: str, bits: str, dimensions: str) -> int:
  elements = math.prod(map(int, filter(None, dimensions.split(","))))
  return elements * (int(bits) // 8 if bits else 1)


def _add(total: Traffic, more: Traffic, times: int = 1) -> None:
  for kind, (count, size) in more.items():
    before = total.get(kind, Collective(0, 0))
    total[kind] = Collective(before.count + times * count, before.size + times * size)
