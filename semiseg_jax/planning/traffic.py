"""What a compiled step sends between devices, read from its program."""

import math
import re
from typing import NamedTuple

from semiseg_jax.planning.program import Instruction, Program, executed

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
_SHAPE = re.compile(r"\b(pred|token|[a-z]+(\d+)\w*)\[([\d,]*)\]")


class Collective(NamedTuple):
  """How often an operation runs in a step, and the bytes of its results on one device."""

  count: int
  size: int


Traffic = dict[str, Collective]


def traffic(program: Program) -> Traffic:
  """The collectives of one execution, by kind; see `executed` for loops and choices."""
  total: Traffic = {}
  for instruction, times in executed(program, size, lambda _: True).items():
    kind = instruction.opcode.removesuffix("-start")
    if kind in _KINDS:
      before = total.get(kind, Collective(0, 0))
      total[kind] = Collective(before.count + times, before.size + times * size(instruction))
  return total


def total_size(found: Traffic) -> int:
  """Bytes of all kinds together."""
  return sum(collective.size for collective in found.values())


def size(instruction: Instruction) -> int:
  """The bytes of a collective's results; 0 of any other instruction."""
  kind = instruction.opcode.removesuffix("-start")
  if kind not in _KINDS:
    return 0
  shape = instruction.shape
  if instruction.opcode != kind != "all-reduce":
    shape = _elements(shape)[1]  # of (operands, results, ...)
  return sum(_bytes(*part) for part in _SHAPE.findall(shape))


def _elements(shape: str) -> list[str]:
  """The elements of a tuple's shape, which may be tuples themselves."""
  elements, depth = [""], 0
  for character in shape[1:-1]:
    depth += (character in "([{") - (character in ")]}")
    if character == "," and not depth:
      elements.append("")
    else:
      elements[-1] += character
  return elements


def _bytes(name: str, bits: str, dimensions: str) -> int:
  elements = math.prod(map(int, filter(None, dimensions.split(","))))
  return elements * (int(bits) // 8 if bits else 1)
