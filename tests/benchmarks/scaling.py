"""What a step of every method sends between devices, for 1 to 64 of them.

`python -m tests.benchmarks.scaling`: compiles each method's step for virtual devices and reads its
program: a network of a few thousand weights, a labelled and an unlabelled image of 32x32 on every
device, 5 classes. `--run` also runs a step; `--json` prints a line of JSON for each.
"""

import argparse
import json
import os
from collections.abc import Iterator
from typing import Any

from tests.environment import xla_flags

_RECO = {"name": "reco", "num_queries": 16, "num_negatives": 32, "scale_range": (0.5, 1.5)}
_BANK = {"name": "memory_bank", "ramp_steps": 1, "bank_lead": 1, "threshold": 0.1}
VARIANTS = {  # name -> (the method, images with labels)
  "supervised": ({"name": "supervised"}, 64),
  "mean_teacher, ClassMix": ({"name": "mean_teacher", "scale_range": (0.5, 1.5)}, 64),
  "reco": (_RECO, 64),
  "reco, scope=device": ({**_RECO, "scope": "device"}, 64),
  # an image may put slots / images rows into the bank
  "memory_bank, 64 slots": ({**_BANK, "memory_per_class": 64}, 64),
  "memory_bank, 4,096 slots": ({**_BANK, "memory_per_class": 4096}, 4096),
  "the same, 8 rows an image": ({**_BANK, "memory_per_class": 4096}, 512),
}


def measured(name: str, devices: int, runs: bool) -> dict[str, Any]:
  """The collectives of a step by kind, and its loss if it is run."""
  import jax
  import optax

  from semiseg_jax.methods import make_method
  from semiseg_jax.planning.program import read
  from semiseg_jax.planning.traffic import traffic
  from semiseg_jax.runtime.mesh import make_mesh, shard_batch
  from semiseg_jax.training.state import make_state
  from semiseg_jax.training.step import make_train_step
  from tests.tiny import facts_of, random_batch, tiny_start

  config, images = VARIANTS[name]
  method, optimizer = make_method(config), optax.sgd(0.05, momentum=0.9)
  mesh = make_mesh(jax.devices()[:devices])
  facts = facts_of(rows=devices)._replace(labeled_images=images, unlabeled_images=2 * images)
  state = make_state(tiny_start(method), method, optimizer, facts, 0, mesh)
  batch = shard_batch(random_batch(devices, streams=method.streams), mesh)
  step = make_train_step(method, optimizer, mesh).lower(state, batch).compile()
  found = {"variant": name, "devices": devices, "traffic": traffic(read(step.as_text()))}
  if runs:
    state, metrics = step(state, batch)
    found |= {"step": int(state.step), "loss": float(metrics["loss"])}
  return found


def table(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
  """KiB of every collective's results on a device and how many there are, a line for each row."""
  kinds = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
  yield f"{'KiB (collectives)':26}{'devices':>8}" + "".join(f"{kind:>20}" for kind in kinds)
  for row in rows:
    cells = [row["traffic"].get(kind) for kind in kinds]
    text = "".join(f"{f'{c.size / 1024:.1f} ({c.count})' if c else '-':>20}" for c in cells)
    yield f"{row['variant']:26}{row['devices']:8}{text}"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
  parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
  parser.add_argument("--run", action="store_true")
  parser.add_argument("--json", action="store_true")
  args = parser.parse_args()
  os.environ["JAX_PLATFORMS"] = "cpu"
  patience = "--xla_cpu_collective_call_terminate_timeout_seconds=600"  # they share few cores
  os.environ["XLA_FLAGS"] = f"{xla_flags(max(args.devices))} {patience}"
  rows = (measured(name, devices, args.run) for name in args.variants for devices in args.devices)
  for line in (json.dumps(row) for row in rows) if args.json else table(rows):
    print(line, flush=True)


if __name__ == "__main__":
  main()
