"""Where a compiled program spends a device's time, by line of our code."""

import pathlib
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
from jax.profiler import ProfileData

from semiseg_jax.planning.kernels import takes_kernel
from semiseg_jax.planning.program import Program

_NAME = re.compile(r"%?([\w.\-]+)")  # of "%fusion.3 = f32[2] fusion(...)" or "fusion.3"


class Group(NamedTuple):
  """A place's kernels and milliseconds in one call; of a CPU the sum of its threads'."""

  kernels: float
  milliseconds: float


def profiled(function: Callable[[], object], calls: int, program: Program) -> dict[str, Group]:
  """What the device did in each of some calls of a program, by FILE:LINE, the longest first.

  "?" holds kernels that no instruction of the program is known for.
  """
  instructions = {each.name: each for part in program.computations.values() for each in part}
  total: dict[str, Group] = {}
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      jax.block_until_ready([function() for _ in range(calls)])
    (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
    for name, nanoseconds in events(ProfileData.from_file(str(file)), program.name):
      instruction = instructions.get(name)
      if instruction is None or takes_kernel(instruction):  # a loop's time is that of its body
        place = program.place(instruction) if instruction else "?"
        before = total.get(place, Group(0, 0))
        more = Group(1 / calls, nanoseconds / 1e6 / calls)
        total[place] = Group(*map(sum, zip(before, more, strict=True)))
  return dict(sorted(total.items(), key=lambda item: -item[1].milliseconds))


def events(profile: ProfileData, module: str) -> Iterator[tuple[str, float]]:
  """(instruction, nanoseconds) of every kernel that no other module is known to have started.

  A GPU has a line for each of its streams, and others that tell the same again; a TPU has one for
  the operations; on a CPU what names an instruction is an event of one.
  """
  planes = list(profile.planes)
  devices = [plane for plane in planes if plane.name.startswith("/device:")]
  for plane in devices or planes:
    lines = list(plane.lines)
    streams = [line for line in lines if line.name.startswith("Stream")]
    for line in streams or ([l for l in lines if l.name == "XLA Ops"] if devices else lines):
      for event in line.events:
        stats = dict(event.stats)
        name = stats.get("hlo_op")
        if (name or devices) and stats.get("hlo_module", module).startswith(module):
          match = _NAME.match(name or event.name)
          yield match[1] if match else "", event.duration_ns
