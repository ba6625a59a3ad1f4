"""How many kernels a compiled step starts, read from its program.

On a GPU nearly every instruction that is no loop, choice or name for a part of memory is one
kernel. On a CPU the same count is of instructions: fusions, products, sorts, copies.
"""

import re
from collections import Counter
from typing import NamedTuple

from semiseg_jax.planning.program import Instruction, Program, executed

_RUNS_OTHERS = ("while", "conditional", "call", "async-start")
_TAKES_NONE = frozenset((
  *_RUNS_OTHERS, "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all",
  "add-dependency", "opt-barrier", "partition-id", "replica-id",
))  # fmt: skip
_FUSION = re.compile(r"kind=k(\w+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')


class Kernels(NamedTuple):
  """Kernels of one execution: kinds, such as "fusion Loop", "copy" or a library's call, and places,
  FILE:LINE below semiseg_jax, each with its number."""

  kinds: Counter[str]
  places: Counter[str]

  @property
  def total(self) -> int:
    return self.kinds.total()


def kernels(program: Program) -> Kernels:
  """The kernels of one execution; see `executed` for loops and choices."""
  kinds: Counter[str] = Counter()
  places: Counter[str] = Counter()
  runs = executed(program, takes_kernel, lambda instruction: instruction.opcode in _RUNS_OTHERS)
  for instruction, times in runs.items():
    if takes_kernel(instruction):
      kinds[kind(instruction)] += times
      places[program.place(instruction)] += times
  return Kernels(kinds, places)


def takes_kernel(instruction: Instruction) -> bool:
  """Whether something is started for the instruction itself."""
  opcode = instruction.opcode
  return opcode not in _TAKES_NONE and not opcode.endswith(("-done", "-update"))


def kind(instruction: Instruction) -> str:
  """The opcode, and of what sort it is where that is told."""
  if instruction.opcode == "custom-call":
    return match[1] if (match := _TARGET.search(instruction.rest)) else "custom-call"
  if match := instruction.opcode == "fusion" and _FUSION.search(instruction.rest):
    return f"fusion {match[1]}"
  return instruction.opcode.removesuffix("-start")
