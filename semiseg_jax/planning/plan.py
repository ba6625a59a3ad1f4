"""What a run will take on TPUs or GPUs that are not there: its real step, compiled for them."""

import copy
import math
import re
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from semiseg_jax.backend import planned_for
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Tree
from semiseg_jax.input.pipeline import Stream
from semiseg_jax.input.sources import Dataset
from semiseg_jax.planning import gpus, tpus
from semiseg_jax.planning.kernels import Kernels, kernels
from semiseg_jax.planning.program import read
from semiseg_jax.planning.traffic import Traffic, traffic
from semiseg_jax.runtime.mesh import forms, larger_batches, listed, make_mesh
from semiseg_jax.training.batch import batches_of, scale_batch
from semiseg_jax.training.setup import Run, build
from semiseg_jax.training.step import state_spec

_KINDS = tpus.KINDS | gpus.KINDS
_QUICK = {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}
_OUT_OF_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|[Rr]an out of memory|Exceeded hbm capacity")


class Cost(NamedTuple):
  """Of one step on one device: bytes of memory, floating-point operations, seconds.

  resident: the state and the batch; temporary: all else at its height; program: its code. flops,
  estimate: XLA's own of the arithmetic (NaN for GPUs, of which it tells none) and of the step's
  time, which for some programs is negative, that is, none.
  """

  resident: int
  temporary: int
  program: int
  flops: float
  estimate: float
  traffic: Traffic
  kernels: Kernels
  compile_seconds: float

  @property
  def memory(self) -> int:
    return self.resident + self.temporary + self.program


class Plan(NamedTuple):
  """cost: None if the step does not fit; largest: (labelled, unlabelled) batch that fits, None if
  it was not looked for or not even the config's does."""

  topology: str
  devices: int
  hosts: int
  kind: str
  batch: tuple[int, int]
  cost: Cost | None
  largest: tuple[int, int] | None


def make_plan(
  config: ConfigDict,
  dataset: Dataset,
  topology: str,
  *,
  domain: Dataset | None = None,
  search: bool = False,
  full_effort: bool = False,
  note: Callable[[str], None] = print,
) -> Plan:
  """Compiles the train step of a config for a topology such as "v5e:2x4", "h100" or "h100:2x8".

  dataset, domain: only their classes, lists and image types are looked at. search: also for the
  largest batch. full_effort: compile for TPUs as a real run would, which takes several times as
  long. Raises ValueError as `tpus.tpus`, `gpus.gpus` and `build` do.
  """
  devices = devices_of(topology)
  config = copy.deepcopy(config)
  config.model.init_from = None  # weights change no shape
  share_out(config, len(devices), note)
  mesh = make_mesh(devices)
  platform, largest = devices[0].platform, None
  options = gpus.OPTIONS if platform == "gpu" else None if full_effort else _QUICK
  with planned_for(platform):
    run = build(config, dataset, domain, mesh)
    cost = compiled(run, 1, options)
    if cost:
      note(f"compiled in {cost.compile_seconds:.0f} s")
    batch = run.facts.labeled_batch, run.facts.unlabeled_batch
    if search and cost:
      scale = largest_scale(lambda scale: compiled(run, scale, options), note)
      largest = tuple(rows * scale for rows in batch)
  hosts = len({device.process_index for device in devices})
  return Plan(topology, len(devices), hosts, devices[0].device_kind, batch, cost, largest)


def share_out(config: ConfigDict, devices: int, note: Callable[[str], None]) -> None:
  """Makes the batch the next larger one that the devices can share out."""
  batches = batches_of(config)
  if not all(batches.values()):
    return  # `build` says so
  larger = larger_batches(batches, devices)
  if larger != batches:
    note(f"{devices} devices can't share out {listed(batches)}: planned with {listed(larger)}")
    scale_batch(config, larger["labeled"])


def devices_of(topology: str) -> list[jax.Device]:
  """Those of a TPU slice or of GPUs, which are not there."""
  return gpus.gpus(topology) if gpus.is_gpu(topology) else tpus.tpus(topology)


def compiled(run: Run, scale: int, options: dict | None) -> Cost | None:
  """The cost of a step with batches `scale` times as large; None if it does not fit."""
  start = time.monotonic()
  lowered = run.train_step().lower(abstract_state(run), abstract_batch(run, scale))
  try:
    program = lowered.compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    if _OUT_OF_MEMORY.search(str(error)):
      return None
    raise
  memory, counted = program.memory_analysis(), program.cost_analysis() or {}
  text = read(program.as_text())
  cost = Cost(
    memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
    memory.temp_size_in_bytes,
    memory.generated_code_size_in_bytes,
    counted.get("flops", math.nan),
    counted.get("optimal_seconds", -1.0),
    traffic(text),
    kernels(text),
    time.monotonic() - start,
  )
  there, _ = _KINDS.get(run.mesh.devices.flat[0].device_kind, (math.inf, math.nan))
  return cost if cost.memory <= there * 2**30 else None  # of which GPUs' compiler says nothing


def abstract_state(run: Run) -> Tree:
  """The shapes of the state at the start, and how they lie on the mesh."""
  state = jax.eval_shape(run.initial_state)
  laid = forms(state, state_spec(run.method, state), run.mesh)
  return jax.tree.map(lambda x, form: x.update(sharding=form), state, laid)


def abstract_batch(run: Run, scale: int = 1) -> Tree:
  """The shapes of a batch, as the streams' transforms make their records."""
  accumulate = run.config.training.accumulate
  leading = (accumulate,) if accumulate > 1 else ()
  sharding = NamedSharding(run.mesh, P(*[None] * len(leading), DATA_AXIS))

  def part(stream: Stream) -> Tree:
    record = {**stream.source[0], "position": np.int32(0)}
    record = stream.transform.random_map(record, np.random.default_rng(0))
    batched = lambda x: (*leading, stream.batch * scale, *x.shape)
    shape = lambda x: jax.ShapeDtypeStruct(batched(x), x.dtype, sharding=sharding)
    return {name: shape(np.asarray(value)) for name, value in record.items()}

  return {name: part(stream) for name, stream in sorted(run.streams.items())}


def largest_scale(cost_of: Callable[[int], Cost | None], note: Callable[[str], None]) -> int:
  """The largest multiple of a batch that fits, which that batch itself does.

  Doubles until it does not fit, then halves the interval.
  """
  fits, fails = 1, None
  while fails is None or fails - fits > 1:
    scale = 2 * fits if fails is None else (fits + fails) // 2
    found = cost_of(scale)
    note(f"{scale} times the batch " + ("fits" if found else "does not fit"))
    fits, fails = (scale, fails) if found else (fits, scale)
  return fits


def describe(plan: Plan) -> str:
  """The plan in words and figures."""
  labeled, unlabeled = plan.batch
  memory, peak = _KINDS.get(plan.kind, (math.nan, math.nan))
  lines = [
    f"{plan.topology}: {plan.devices} x {plan.kind} on {plan.hosts} hosts, {labeled} labelled"
    + (f" and {unlabeled} unlabelled" if unlabeled else "")
    + " images a step"
  ]
  if plan.cost is None:
    lines.append(
      f"memory       does not fit into {memory} GiB a device: smaller batches or crops, "
      "config.model.remat, config.training.accumulate, or more devices"
    )
  else:
    lines += _cost_lines(plan.cost, memory, peak, plan.kind in gpus.KINDS)
  if plan.largest:
    lines.append(
      f"largest      {plan.largest[0]} labelled and {plan.largest[1]} unlabelled images a step fit"
    )
  return "\n".join(lines)


def _cost_lines(cost: Cost, memory: float, peak: float, is_gpu: bool) -> list[str]:
  gib = lambda size: f"{size / 2**30:.2f}"
  share = f" ({100 * cost.memory / 2**30 / memory:.0f} %)" if memory == memory else ""
  seconds = cost.flops / (peak * 1e12)
  estimate = f"{1000 * cost.estimate:.1f} ms by XLA's own estimate"
  if cost.estimate <= 0:
    estimate = f"XLA gives none (optimal_seconds={cost.estimate:.3g})"
  lines = [
    f"memory       {gib(cost.memory)} of {memory} GiB a device{share}: state and batch "
    f"{gib(cost.resident)}, temporary {gib(cost.temporary)}, program {gib(cost.program)}",
  ]
  if is_gpu:
    most = ", ".join(f"{place} {number}" for place, number in cost.kernels.places.most_common(5))
    lines.append(f"kernels      {cost.kernels.total} a step; most at {most}")
  else:
    lines += [
      f"arithmetic   {cost.flops / 1e12:.3f} TFLOP a device and step",
      f"time         {estimate}; at the peak of {peak} TFLOP/s {1000 * seconds:.1f} ms",
    ]
  for kind, (count, size) in sorted(cost.traffic.items()):
    lines.append(f"{kind:<20} {count} a step, {size / 2**20:.1f} MiB")
  return lines
