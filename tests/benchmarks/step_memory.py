"""Memory and time of a step in the forms that trade one for the other.

`python -m tests.benchmarks.step_memory --config toy_reco`: XLA's count of temporary memory on one
device, and the median time of a step. `--steps 0` compiles alone, for full-size configs such as
`--config city_memory_bank --arg model=v3`, of which neither files nor weights are needed.
"""

import argparse
import copy
import importlib
import statistics
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from data.blank import blank_dataset
from semiseg_jax.planning.plan import compiled
from semiseg_jax.runtime.mesh import make_mesh, shard_batch
from semiseg_jax.training.setup import Run, build
from semiseg_jax.training.streams import TrainStream

FORMS = {
  "as it is": {},
  "remat=elementwise": {"model.remat": "elementwise"},
  "remat=blocks": {"model.remat": "blocks"},
  "accumulate=2, half the batch": {"training.accumulate": 2},
  "alternate": {"method.alternate": True},
}


def in_form(config: ConfigDict, changes: dict[str, Any]) -> ConfigDict | None:
  """The config so changed; None if its method has no such form."""
  config = copy.deepcopy(config)
  if "method.alternate" in changes and config.method.name != "memory_bank":
    return None
  config.update_from_flattened_dict(changes)
  if config.training.accumulate > 1:
    config.data.labeled_batch //= config.training.accumulate
    config.data.unlabeled_batch //= config.training.accumulate
  return config


def step_seconds(run: Run, steps: int) -> float:
  """The median of so many steps after the first."""
  config, seconds = run.config, []
  state, step = run.initial_state(run.mesh), run.train_step()
  stream = TrainStream(config, run.streams)
  for _ in range(steps + 1):
    batch = shard_batch(stream.next(), run.mesh, leading=int(config.training.accumulate > 1))
    start = time.perf_counter()
    state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    seconds.append(time.perf_counter() - start)
  stream.close()
  return statistics.median(seconds[1:])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="toy_memory_bank")
  parser.add_argument("--arg", help="behind the config's colon")
  parser.add_argument("--steps", type=int, default=20)
  args = parser.parse_args()
  base = importlib.import_module(f"configs.{args.config}").get_config(args.arg)
  base.evaluation.batch = 1
  height, width = base.data.crop
  known = lambda part: part.name and blank_dataset(part.name, part.variant, (2 * height, 2 * width))
  for name, changes in FORMS.items():
    config = in_form(base, changes)
    if config is None:
      continue
    mesh = make_mesh(jax.devices()[:1])
    run = build(config, known(config.data), known(config.data.domain), mesh)
    cost = compiled(run, 1, None)
    text = f"{name:>28}: {cost.temporary / 2**20:8.0f} MiB temporary"
    if args.steps:
      text += f", {1000 * step_seconds(run, args.steps):8.1f} ms a step"
    print(text, flush=True)


if __name__ == "__main__":
  main()
