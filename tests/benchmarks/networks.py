"""Every network in a table: `python -m tests.benchmarks.networks --help`.

Name, trunk, weights and, for one image in evaluation, floating-point operations as XLA counts them
and, with --time, seconds of compiling and images a second.
"""

import argparse
import time

import jax
import numpy as np

from semiseg_jax import networks
from semiseg_jax.networks import NETWORKS
from tests.benchmarks.timing import seconds


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--names", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
  parser.add_argument("--size", type=int, default=512, help="height and width")
  parser.add_argument("--classes", type=int, default=21)
  parser.add_argument("--time", action="store_true")
  args = parser.parse_args()
  print(f"{jax.devices()[0].device_kind}, {args.size}x{args.size}, {args.classes} classes")
  print(f"| {'network':16} | {'trunk':11} | {'ready':>6} | {'weights':>8} | {'GFLOP':>7} |")
  for name in args.names:
    start = time.perf_counter()
    model = networks.complete({"name": name}) | {"num_classes": args.classes, "heads": {}}
    variables, network = networks.build(model)
    ready = time.perf_counter() - start
    count = sum(x.size for x in jax.tree.leaves(variables.params))
    images = np.zeros((1, args.size, args.size, 3), np.uint8)

    def logits(variables, images, network=network):
      return network(*variables, images, train=False)[0].logits

    lowered = jax.jit(logits).lower(variables, images)
    flops = lowered.cost_analysis()["flops"]
    row = f"| {name:16} | {model['trunk']['name']:11} | {ready:4.1f} s | {count / 1e6:6.1f} M "
    row += f"| {flops / 1e9:7.1f} |"
    if args.time:
      start = time.perf_counter()
      compiled = lowered.compile()
      row += f" compiled in {time.perf_counter() - start:.0f} s, "
      row += f"{1 / seconds(compiled, (variables, images), 2):.2f} images/s"
    print(row, flush=True)


if __name__ == "__main__":
  main()
