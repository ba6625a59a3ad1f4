"""What a training step takes on the device that is here.

`python -m tests.benchmarks.step --config=pascal_reco --arg=method=mean_teacher`, for any config,
with made-up batches: neither files nor weights are needed. `--set KEY=VALUE` changes a value of the
config. "product" is the step's arithmetic, as XLA counts it in the program before it is compiled,
over its time, as a share of the speed of one large matrix product of the same run. On a CPU
"kernels" are instructions and the profile adds up threads. Nothing is taken from a compile cache.
The last line is a row for the table of docs/performance.md.
"""

import argparse
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxlib

from semiseg_jax.planning.kernels import kernels
from semiseg_jax.planning.program import Program, read
from semiseg_jax.training.setup import Run
from semiseg_jax.training.start import compute_dtype
from tests.benchmarks.made_up import batch_of, config_of, run_of
from tests.benchmarks.profile import Group, profiled
from tests.benchmarks.timing import milliseconds

_SIDE = {"cpu": 2048}  # of the matrix product; elsewhere
_LARGE = 8192
_PROFILED = 3  # steps


class Measured(NamedTuple):
  """Of one step: images, seconds of tracing and compiling, milliseconds, floating-point operations,
  bytes by XLA's count and (None where it isn't told) the most that the device had in use; the
  program and what the profile found."""

  images: int
  trace: float
  compile: float
  step: float
  flops: float
  memory: int
  peak: int | None
  program: Program
  groups: dict[str, Group]


def measure(run: Run, steps: int) -> Measured:
  """Compiles the step of a run and repeats it on one batch."""
  state, batch = run.initial_state(run.mesh), batch_of(run)
  images = sum(stream.batch for stream in run.streams.values()) * run.config.training.accumulate
  start = time.perf_counter()
  lowered = run.train_step().lower(state, batch)
  trace = time.perf_counter() - start
  start = time.perf_counter()
  compiled = lowered.compile()
  seconds = time.perf_counter() - start

  def update():
    nonlocal state
    state, metrics = compiled(state, batch)
    return metrics

  jax.block_until_ready([update() for _ in range(3)])
  took = milliseconds(update, steps)
  program, memory = read(compiled.as_text()), compiled.memory_analysis()
  known = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
  known += memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
  peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
  groups = profiled(update, _PROFILED, program)
  flops = (lowered.cost_analysis() or {}).get("flops", float("nan"))
  return Measured(images, trace, seconds, took, flops, known, peak, program, groups)


def product_speed(dtype: jax.typing.DTypeLike) -> float:
  """Floating-point operations a second of one large matrix product."""
  side = _SIDE.get(jax.default_backend(), _LARGE)
  matrix = jnp.ones((side, side), dtype)
  product = jax.jit(jnp.matmul)
  jax.block_until_ready(product(matrix, matrix))
  return 2 * side**3 / milliseconds(lambda: product(matrix, matrix), 3) * 1000


def describe(found: Measured, speed: float, top: int) -> str:
  """The figures, a line each, and the places that take longest."""
  gib = lambda size: f"{size / 2**30:.2f} GiB"
  counted = kernels(found.program)
  ran = sum(group.kernels for group in found.groups.values())
  busy = sum(group.milliseconds for group in found.groups.values())
  lines = [
    f"compile   {found.compile:.1f} s, and {found.trace:.1f} s to trace",
    f"step      {found.step:.1f} ms, {1000 * found.images / found.step:.1f} images/s",
    f"product   {speed / 1e12:.3g} TFLOP/s, the step {found.flops / 1e12:.3g} TFLOP: "
    f"{100 * share(found, speed):.0f} % of it",
    f"memory    {gib(found.memory)} by XLA's count"
    + (f", at most {gib(found.peak)} in use" if found.peak else ""),
    f"kernels   {counted.total} in the program: "
    + ", ".join(f"{number} {kind}" for kind, number in counted.kinds.most_common(6)),
    f"profile   {busy:.1f} ms in {ran:.0f} kernels a step; ms, kernels, where:",
  ]
  for place, group in list(found.groups.items())[:top]:
    lines.append(f"{group.milliseconds:10.2f} {group.kernels:7.0f}  {place}")
  return "\n".join(lines)


def share(found: Measured, speed: float) -> float:
  """Of the product's speed."""
  return found.flops / (found.step / 1000) / speed


def row(name: str, found: Measured, speed: float, dtype: jax.typing.DTypeLike) -> str:
  """For the table of docs/performance.md."""
  rate = 1000 * found.images / found.step
  memory = (found.peak or found.memory) / 2**30
  device = f"{jax.devices()[0].device_kind}, {jnp.dtype(dtype)}"
  cells = [
    name, found.images, f"{found.step:.1f} ms", f"{rate:.1f}", f"{100 * share(found, speed):.0f} %",
    f"{memory:.2f} GiB", kernels(found.program).total, f"{found.compile:.0f} s", device,
    f"jax {jax.__version__}, jaxlib {jaxlib.__version__}",
  ]  # fmt: skip
  return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="toy_reco", help="a file of configs/")
  parser.add_argument("--arg", help="behind the config's colon")
  parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
  parser.add_argument("--steps", type=int, default=10, help="of each of five rounds")
  parser.add_argument("--top", type=int, default=20, help="lines of the profile")
  args = parser.parse_args()
  jax.config.update("jax_enable_compilation_cache", False)  # whose programs have others' lines
  config = config_of(args.config, args.arg, args.set)
  dtype = compute_dtype(config.model.dtype)
  found, speed = measure(run_of(config), args.steps), product_speed(dtype)
  name = ":".join(filter(None, [args.config, args.arg])) + "".join(f", {s}" for s in args.set)
  print(f"{name} on {jax.devices()[0].device_kind}, {found.images} images a step")
  print(describe(found, speed, args.top))
  print(row(name, found, speed, dtype))


if __name__ == "__main__":
  main()
