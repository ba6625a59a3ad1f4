"""What must hold for a method, whoever wrote it."""

import pathlib

import numpy as np

from semiseg_jax.contract import Method
from semiseg_jax.runtime.checkpoints import Checkpoints
from semiseg_jax.runtime.mesh import shard_batch
from semiseg_jax.training.loop import arrays_of
from tests.compare import assert_same, assert_same_bits
from tests.tiny import OPTIMIZER, batches_of, compiled_step, run_steps, tiny_state

STEPS = 4
TOLERANCE = 2e-5  # float32 sums in another order, grown over STEPS steps


def assert_same_on(devices: int, method: Method, domain: bool = False, tolerance=TOLERANCE) -> None:
  """The law of N devices: as many steps lead to the same state, within rounding."""
  batches = batches_of(method, STEPS, domain)
  state, metrics = run_steps(method, devices, batches)
  expected, expected_metrics = run_steps(method, 1, batches)
  assert int(state.step) == STEPS
  assert_same(state.networks, expected.networks, tolerance)
  assert_same(state.method_state, expected.method_state, tolerance)
  assert_same(metrics, expected_metrics, tolerance)
  assert np.isfinite(metrics["loss"]) and metrics["gradient_norm"] > 0


def assert_resumes(method: Method, directory: pathlib.Path, devices: int = 8) -> None:
  """Saved half-way, and restored into a fresh state, it ends with the same bits."""
  batches, step = batches_of(method, STEPS), compiled_step(method, OPTIMIZER, devices)
  unbroken, _ = run_steps(method, devices, batches)
  state, mesh = tiny_state(method, OPTIMIZER, devices)
  for batch in batches[: STEPS // 2]:
    state, _ = step(state, shard_batch(batch, mesh))
  with Checkpoints(directory, keep=1) as checkpoints:
    checkpoints.save(1, arrays_of(state), {})
    checkpoints.wait()
    fresh, _ = tiny_state(method, OPTIMIZER, devices)
    arrays, _ = checkpoints.restore(arrays_of(fresh))
  state = fresh.replace(**arrays)
  for batch in batches[STEPS // 2 :]:
    state, _ = step(state, shard_batch(batch, mesh))
  assert_same_bits(arrays_of(state), arrays_of(unbroken))
