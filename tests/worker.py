"""One process of a run that trains every method for a few steps with a tiny network.

Saves, restores, goes on and evaluates; writes checkpoints to DIR/METHOD/checkpoints and what the
evaluation counted to DIR/METHOD/counts.json. For tests/test_hosts.py.
"""

import argparse
import pathlib

import jax
import numpy as np

from semiseg_jax.evaluation.evaluate import make_evaluate_step
from semiseg_jax.files import write_json
from semiseg_jax.methods import make_method
from semiseg_jax.runtime import processes
from semiseg_jax.runtime.checkpoints import Checkpoints
from semiseg_jax.runtime.mesh import make_mesh, shard_batch
from semiseg_jax.training.loop import arrays_of
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import make_train_step
from tests.tiny import (
  CLASSES,
  OPTIMIZER,
  SIZE,
  facts_of,
  plain_colors,
  random_batch,
  small_methods,
  tiny_start,
)

METHODS: dict[str, dict] = {}  # each with the first of its variants
for variant, values in small_methods().items():
  METHODS.setdefault(variant.split("/")[0], values)
ROWS = 16
_AGAIN = 3  # the step before which it saves and restores


def own_rows(seed: int, streams: tuple[str, ...], mesh):
  """This process's rows of a global batch, laid over the mesh."""
  share = ROWS // jax.process_count()
  own = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
  batch = random_batch(ROWS, SIZE, CLASSES, seed, streams=streams)
  return shard_batch(jax.tree.map(lambda x: x[own], batch), mesh)


def train(values: dict, directory: pathlib.Path, steps: int) -> None:
  """Goes on from the newest checkpoint there, if there is one."""
  method, mesh = make_method(values), make_mesh()
  start = tiny_start(method)
  state = make_state(start, method, OPTIMIZER, facts_of(rows=ROWS), 0, mesh)
  step = make_train_step(method, OPTIMIZER, mesh)
  with Checkpoints(directory / "checkpoints", keep=2) as checkpoints:

    def restored(state):
      found = checkpoints.restore(arrays_of(state))
      return state.replace(**found[0]) if found else state

    state = restored(state)
    for seed in range(int(state.step), steps):
      if seed == _AGAIN:
        checkpoints.save(seed, arrays_of(state), {})
        checkpoints.wait()
        state = restored(state)
      state, _ = step(state, own_rows(seed, method.streams, mesh))
    checkpoints.save(steps, arrays_of(state), {})
  assert step._cache_size() == 1
  evaluate = make_evaluate_step(start.network, CLASSES, mesh)
  counts = jax.device_get(
    evaluate(*state.networks["student"], own_rows(9, ("labeled",), mesh)["labeled"])
  )
  if jax.process_index() == 0:
    write_json(directory / "counts.json", jax.tree.map(np.ndarray.tolist, counts._asdict()))


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("--directory", type=pathlib.Path, required=True)
  parser.add_argument("--steps", type=int, default=4)
  parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
  parser.add_argument("--coordinator")
  parser.add_argument("--num_processes", type=int)
  parser.add_argument("--process_id", type=int)
  args = parser.parse_args()
  with (
    processes.joined(args.coordinator, args.num_processes, args.process_id, timeout=60),
    plain_colors(),
  ):
    for name in args.methods:
      train(METHODS[name], args.directory / name, args.steps)


if __name__ == "__main__":
  main()
