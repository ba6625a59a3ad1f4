"""Memory of the train step with both passes at once, one after the other, and one pass a step.

`python -m tests.benchmarks.separate_passes --config city_memory_bank --arg model=v3`: compiles the
config's full-size step without running it and prints XLA's own count of temporary memory.
"""

import argparse
import importlib
import time

import jax
import numpy as np

from semiseg_jax.contract import Facts, TrainState
from semiseg_jax.methods import make_method
from semiseg_jax.training.mesh import make_mesh
from semiseg_jax.training.network import make_network
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.training.step import make_train_step

FORMS = {  # separate_passes, method.alternate
  "both at once": (False, False),
  "one after the other": (True, False),
  "one a step": (False, True),
}


def abstract_step(config, num_classes: int) -> tuple:
  """(method, optimizer, state, batch) of a config, as shapes; labelled images as in the paper."""
  method, data = make_method(config.method), config.data
  optimizer = make_optimizer(config.optimizer, config.training.steps)
  variables, network = make_network(config, num_classes, method)
  facts = Facts(
    num_classes, config.training.steps, 744, 2231, data.labeled_batch, data.unlabeled_batch,
    config.model.head_dim,
  )  # fmt: skip
  state = TrainState(
    np.int32(0), *variables, method.init_teacher(variables), optimizer.init(variables.params),
    method.init(facts), jax.random.PRNGKey(0), network, facts,
  )  # fmt: skip

  def part(rows: int) -> dict:
    shape = (rows, *data.crop)
    return {
      "image": jax.ShapeDtypeStruct((*shape, 3), np.uint8),
      "label": jax.ShapeDtypeStruct(shape, np.uint8),
      "position": jax.ShapeDtypeStruct((rows,), np.int32),
    }

  batch = {"labeled": part(data.labeled_batch), "unlabeled": part(data.unlabeled_batch)}
  return method, optimizer, jax.eval_shape(lambda: state), batch


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="toy_memory_bank")
  parser.add_argument("--arg", help="behind the config's colon")
  parser.add_argument("--classes", type=int, default=19)
  args = parser.parse_args()
  config = importlib.import_module(f"configs.{args.config}").get_config(args.arg)
  for name, (separate, config.method.alternate) in FORMS.items():
    method, optimizer, state, batch = abstract_step(config, args.classes)
    step = make_train_step(
      method, optimizer, make_mesh(jax.devices()[:1]), separate_passes=separate
    )
    start = time.perf_counter()
    memory = step.lower(state, batch).compile().memory_analysis()
    print(
      f"{name:>20}: "
      f"{memory.temp_size_in_bytes / 2**20:8.0f} MiB temporary, "
      f"{memory.argument_size_in_bytes / 2**20:.0f} MiB state and batch, "
      f"compiled in {time.perf_counter() - start:.0f} s",
      flush=True,
    )


if __name__ == "__main__":
  main()
