"""One process of a run that trains every method for a few steps with a tiny network.

Saves, restores, goes on and evaluates; writes checkpoints to DIR/METHOD/checkpoints and what the
evaluation counted to DIR/METHOD/counts.json. For tests/test_processes.py.
"""

import argparse
import pathlib

import jax
import numpy as np
import optax

from semiseg_jax.contract import Facts
from semiseg_jax.evaluation.evaluate import make_evaluate_step
from semiseg_jax.methods import make_method
from semiseg_jax.runtime import processes
from semiseg_jax.runtime.checkpoints import Checkpoints, write_json
from semiseg_jax.runtime.mesh import make_mesh, shard_batch
from semiseg_jax.training.loop import arrays_of
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import make_train_step
from tests.tiny import HEADS, network_for, random_batch

METHODS = {
  "supervised": {},
  "mean_teacher": {"scale_range": (0.5, 1.5)},
  "reco": {"scale_range": (0.5, 1.5), "num_queries": 8, "num_negatives": 16},
  "memory_bank": {
    "ramp_steps": 1, "bank_lead": 1, "threshold": 0.1, "memory_per_class": 32, "background": 0
  },
}  # fmt: skip
OPTIMIZER = optax.sgd(0.05, momentum=0.9)
ROWS, SIZE, CLASSES = 16, 32, 5
_AGAIN = 3  # the step before which it saves and restores


def own_rows(seed: int, streams: tuple[str, ...], mesh):
  """This process's rows of a global batch, laid over the mesh."""
  share = ROWS // jax.process_count()
  own = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
  batch = random_batch(ROWS, SIZE, CLASSES, seed, streams=streams)
  return shard_batch(jax.tree.map(lambda x: x[own], batch), mesh)


def train(name: str, values: dict, directory: pathlib.Path, steps: int) -> None:
  """Goes on from the newest checkpoint there, if there is one."""
  method, mesh = make_method({"name": name, **values}), make_mesh()
  variables, network = network_for(method, CLASSES)
  facts = Facts(CLASSES, 20, 16, 32, ROWS, ROWS, HEADS)
  state = make_state(variables, network, method, OPTIMIZER, facts, 0, mesh)
  step = make_train_step(method, OPTIMIZER, mesh)
  streams = ("labeled", "unlabeled") if method.uses_unlabeled else ("labeled",)
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
      state, _ = step(state, own_rows(seed, streams, mesh))
    checkpoints.save(steps, arrays_of(state), {})
  assert step._cache_size() == 1
  evaluate = make_evaluate_step(network, CLASSES, mesh)
  counts = jax.device_get(evaluate(*state.student, own_rows(9, ("labeled",), mesh)["labeled"]))
  if jax.process_index() == 0:
    write_json(directory / "counts.json", jax.tree.map(np.ndarray.tolist, counts._asdict()))


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("directory", type=pathlib.Path)
  parser.add_argument("--steps", type=int, default=4)
  parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
  parser.add_argument("--coordinator")
  parser.add_argument("--num_processes", type=int)
  parser.add_argument("--process_id", type=int)
  args = parser.parse_args()
  with processes.joined(args.coordinator, args.num_processes, args.process_id, timeout=60):
    for name in args.methods:
      train(name, METHODS[name], args.directory / name, args.steps)


if __name__ == "__main__":
  main()
