"""Memory and time of a step in the forms that trade one for the other.

`python -m tests.benchmarks.step_memory --config toy_reco`: XLA's count of temporary memory on one
device, and the median time of a step. `--steps 0` compiles alone, for full-size configs such as
`--config city_memory_bank --arg model=v3`. Neither files nor weights are needed.
"""

import argparse
import copy
from typing import Any

from ml_collections import ConfigDict

from semiseg_jax.planning.plan import compiled
from semiseg_jax.training.setup import Run
from tests.benchmarks.made_up import batch_of, config_of, run_of
from tests.benchmarks.timing import milliseconds

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


def step_milliseconds(run: Run, steps: int) -> float:
  """The median of so many steps after the first, on one batch."""
  state, step, batch = run.initial_state(run.mesh), run.train_step(), batch_of(run)

  def update():
    nonlocal state
    state, metrics = step(state, batch)
    return metrics

  update()
  return milliseconds(update, calls=1, rounds=steps)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="toy_memory_bank")
  parser.add_argument("--arg", help="behind the config's colon")
  parser.add_argument("--steps", type=int, default=20)
  args = parser.parse_args()
  base = config_of(args.config, args.arg)
  for name, changes in FORMS.items():
    config = in_form(base, changes)
    if config is None:
      continue
    run = run_of(config)
    cost = compiled(run, 1, None)
    text = f"{name:>28}: {cost.temporary / 2**20:8.0f} MiB temporary"
    if args.steps:
      text += f", {step_milliseconds(run, args.steps):8.1f} ms a step"
    print(text, flush=True)


if __name__ == "__main__":
  main()
