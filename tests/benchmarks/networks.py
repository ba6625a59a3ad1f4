"""Every network in a table: `python -m tests.benchmarks.networks --help`.

Name, trunk, weights, seconds until it is there with random ones and, for one image in evaluation,
floating-point operations as XLA counts them; with --time also seconds of compiling at 256x256 and
images a second. --picture draws these over the weights (needs matplotlib).
"""

import argparse
import pathlib
import time
from typing import NamedTuple

import jax
import numpy as np

from semiseg_jax import networks
from semiseg_jax.models.network import Network, Variables
from semiseg_jax.networks import NETWORKS
from tests.benchmarks.timing import seconds

# The same module and trunk in another original's order of layers.
TWINS = {"deeplabv2_coco", "deeplabv2_imagenet", "deeplabv3plus_c3", "deeplabv3plus_zoo"}
NAMES = [n for n, kind in NETWORKS.items() if not kind.OF_IMAGES and n not in TWINS]
COMPILED_SIZE, REPEATS = 256, 3


class Row(NamedTuple):
  """ready, compiling: seconds; weights: a number; operations: of one image; speed: images/s."""

  name: str
  trunk: str
  ready: float
  weights: int
  operations: float
  compiling: float | None
  speed: float | None

  def __str__(self) -> str:
    text = f"| `{self.name}` | `{self.trunk}` | {self.weights / 1e6:.1f} M "
    text += f"| {self.operations / 1e9:.0f} | {self.ready:.1f} s |"
    return text if self.speed is None else f"{text} {self.compiling:.0f} s | {self.speed:.2f} |"


def measure(name: str, size: int, num_classes: int, timed: bool) -> Row:
  start = time.perf_counter()
  model = networks.complete({"name": name}) | {"num_classes": num_classes, "heads": {}}
  variables, network = networks.build(model)
  ready = time.perf_counter() - start
  weights = sum(x.size for x in jax.tree.leaves(variables.params))
  lowered, args = lower(network, variables, size)
  operations, compiling, speed = lowered.cost_analysis()["flops"], None, None
  if timed:
    small, _ = lower(network, variables, COMPILED_SIZE)
    start = time.perf_counter()
    small.compile()
    compiling = time.perf_counter() - start
    speed = 1 / seconds(lowered.compile(), jax.device_put(args), REPEATS)
  return Row(name, model["trunk"]["name"], ready, weights, operations, compiling, speed)


def lower(network: Network, variables: Variables, size: int) -> tuple[jax.stages.Lowered, tuple]:
  """The network's evaluation of one image of that height and width, and its arguments."""

  def logits(variables: Variables, images: jax.Array) -> jax.Array:
    return network(*variables, images, train=False)[0].logits

  args = variables, np.zeros((1, size, size, 3), np.uint8)
  return jax.jit(logits).lower(*args), args


def draw(rows: list[Row], path: pathlib.Path, title: str) -> None:
  """Images a second over millions of weights, both on logarithmic scales."""
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(figsize=(9, 6), layout="constrained")
  axes.scatter([row.weights / 1e6 for row in rows], [row.speed for row in rows])
  for i, row in enumerate(sorted(rows, key=lambda row: row.speed)):
    place, aside = (row.weights / 1e6, row.speed), (-6, "right") if i % 2 else (6, "left")
    options = {"textcoords": "offset points", "fontsize": 9, "va": "center"}
    axes.annotate(row.name, place, (aside[0], 0), ha=aside[1], **options)
  axes.set(xscale="log", yscale="log", xlabel="weights, millions", ylabel="images/s", title=title)
  axes.margins(x=0.12)
  axes.grid(which="both", alpha=0.3)
  figure.savefig(path, dpi=120)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--names", nargs="+", default=NAMES, choices=list(NETWORKS))
  parser.add_argument("--size", type=int, default=512, help="height and width")
  parser.add_argument("--classes", type=int, default=21)
  parser.add_argument("--time", action="store_true")
  parser.add_argument("--picture", type=pathlib.Path, help="with --time: a file to write")
  args = parser.parse_args()
  title = f"{jax.devices()[0].device_kind}, {args.size}x{args.size}, {args.classes} classes"
  heads = ["network", "trunk", "weights", "GFLOP", "ready in"]
  heads += ["compiled in", "images/s"] if args.time else []
  print(title, f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", sep="\n")
  rows = []
  for name in args.names:
    rows.append(measure(name, args.size, args.classes, args.time))
    print(rows[-1], flush=True)
  if args.picture:
    draw(rows, args.picture, title)


if __name__ == "__main__":
  main()
