"""The text of a compiled program, an optimised HLO module: what runs in it, how often, and where in
our code it is from."""

import functools
import pathlib
import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

_MODULE = re.compile(r"HloModule ([\w.\-]+)")
_PACKAGE = f"{pathlib.Path(__file__).parents[1]}/"
# ENTRY, name and lines of a computation
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \([^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.+?) ([a-z][a-z0-9\-]*)(\(.*)$")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_SOURCE = re.compile(r'source_file="([^"]*)"(?: source_line=(\d+))?')
_NUMBERED = re.compile(r"^(\d+) (.*)$", re.MULTILINE)
_VALUE = re.compile(r"(\w+)=(\d+)")


class Instruction(NamedTuple):
  """shape: of its result, as text; rest: its operands and all that is said of it."""

  name: str
  shape: str
  opcode: str
  rest: str

  @property
  def turns(self) -> int:
    """How often a loop turns; 1 if that is not known, and of all else."""
    return int(match[1]) if (match := _TRIPS.search(self.rest)) else 1

  @property
  def called(self) -> list[str]:
    """The computations that it runs, or one of which it runs if it is a choice."""
    if match := _BRANCHES.search(self.rest):
      return [branch.strip().lstrip("%") for branch in match[1].split(",")]
    return _CALLED.findall(self.rest)


class Program(NamedTuple):
  """name: the module's; computations: by name; entry: the one that a call runs; frames:
  "FILE:LINE" by number."""

  name: str
  computations: dict[str, list[Instruction]]
  entry: str
  frames: dict[int, str]

  def place(self, instruction: Instruction) -> str:
    """FILE:LINE where it is from, below semiseg_jax if it has a frame there; "?" if not told."""
    if match := _FRAME.search(instruction.rest):
      return self.frames.get(int(match[1]), "?")
    if match := _SOURCE.search(instruction.rest):
      return _shown(match[1], match[2] or "?")
    return "?"


def read(text: str) -> Program:
  """The program that `compiled.as_text()` shows."""
  found, entry = {}, ""
  for is_entry, name, lines in _COMPUTATION.findall(text):
    matches = map(_INSTRUCTION.match, lines.splitlines())
    found[name] = [Instruction(*match.groups()) for match in matches if match]
    entry = name if is_entry else entry
  name = match[1] if (match := _MODULE.match(text)) else ""
  return Program(name, found, entry, _frames(text))


def executed(
  program: Program,
  weight: Callable[[Instruction], int],
  enters: Callable[[Instruction], bool],
) -> Counter[Instruction]:
  """How often each instruction runs in one execution.

  What a loop contains counts as often as it turns (once if that is not known), and of a choice the
  branch of most weight. enters: whether what an instruction calls counts, too.
  """

  def weigh(counts: Counter[Instruction]) -> int:
    return sum(times * weight(instruction) for instruction, times in counts.items())

  @functools.cache
  def of(name: str) -> Counter[Instruction]:
    total: Counter[Instruction] = Counter()
    for instruction in program.computations.get(name, []):
      total[instruction] += 1
      inner = map(of, instruction.called if enters(instruction) else [])
      if instruction.opcode == "conditional":
        inner = [max(inner, key=weigh, default=Counter())]
      for counts in inner:
        for each, times in counts.items():
          total[each] += times * instruction.turns
    return total

  return of(program.entry)


def _frames(text: str) -> dict[int, str]:
  """Every stack frame's place: of the innermost of it and its callers that is ours, or its own."""
  files = {number: name.strip('"') for number, name in _table(text, "FileNames").items()}
  locations = _values(text, "FileLocations")
  frames = _values(text, "StackFrames")
  # a frame that nobody calls names 0 or, where numbers of callers are one too large, 1
  none = min((frame.get("parent_frame_id", 0) for frame in frames.values()), default=0)

  def place(number: int) -> tuple[str, str]:
    location = locations.get(frames[number].get("file_location_id", 0), {})
    return files.get(location.get("file_name_id", 0), "?"), str(location.get("line", "?"))

  def shown(number: int) -> str:
    seen, at = set(), number
    while at in frames and at not in seen:
      file, line = place(at)
      if file.startswith(_PACKAGE):
        return _shown(file, line)
      seen.add(at)
      at = frames[at].get("parent_frame_id", 0) - none
    return _shown(*place(number))

  return {number: shown(number) for number in frames}


def _shown(file: str, line: str) -> str:
  ours = file.startswith(_PACKAGE)
  return f"{file.removeprefix(_PACKAGE) if ours else pathlib.Path(file).name}:{line}"


def _table(text: str, name: str) -> dict[int, str]:
  """The numbered lines under a heading before the first computation; {} without one."""
  match = re.search(rf"^{name}\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
  return {int(n): rest for n, rest in _NUMBERED.findall(match[1])} if match else {}


def _values(text: str, name: str) -> dict[int, dict[str, int]]:
  read_line = lambda line: {key: int(value) for key, value in _VALUE.findall(line)}
  return {number: read_line(line) for number, line in _table(text, name).items()}
