"""Times the ReCo loss and reports its memory: `python -m tests.benchmarks.reco_loss --help`.

The defaults are a batch of Cityscapes, two labelled and two unlabelled 512x512 crops at stride 4,
with every class in it. The shortest of several runs counts; compilation is timed apart.
"""

import argparse
import functools
import resource
import time
from collections.abc import Callable

import jax

from semiseg_jax.losses.contrast import reco_loss
from tests.benchmarks.timing import seconds

_PATCH = 8  # pixels of one label, so that classes come in regions


def batch(images: int, size: int, channels: int, num_classes: int) -> tuple[jax.Array, ...]:
  """Embedding, labels and probabilities; nearly every pixel is hard."""
  keys = jax.random.split(jax.random.key(0), 3)
  embedding = jax.random.normal(keys[0], (images, size, size, channels))
  labels = jax.random.randint(keys[1], (images, size // _PATCH, size // _PATCH), 0, num_classes)
  labels = labels.repeat(_PATCH, axis=1).repeat(_PATCH, axis=2)
  probs = jax.nn.softmax(jax.random.normal(keys[2], (images, size, size, num_classes)))
  return embedding, labels, probs


def report(name: str, function: Callable, args: tuple, repeats: int) -> None:
  """Prints seconds to compile, seconds per call, and the megabytes of temporary buffers."""
  start = time.perf_counter()
  compiled = jax.jit(function).lower(*args).compile()
  compile_seconds = time.perf_counter() - start
  temporary = compiled.memory_analysis().temp_size_in_bytes
  print(
    f"{name:<18} compile {compile_seconds:6.2f} s   "
    f"run {seconds(compiled, args, repeats):7.3f} s   temporary {temporary / 2**20:7.1f} MiB",
    flush=True,
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--images", type=int, default=4)
  parser.add_argument("--size", type=int, default=128, help="height and width of the embedding")
  parser.add_argument("--channels", type=int, default=256)
  parser.add_argument("--classes", type=int, default=19)
  parser.add_argument("--queries", type=int, default=256, help="per class")
  parser.add_argument("--negatives", type=int, default=512, help="per query")
  parser.add_argument("--repeats", type=int, default=4)
  parser.add_argument("--small", action="store_true", help="a size that takes no time")
  args = parser.parse_args()
  if args.small:
    args.images, args.size, args.channels, args.classes = 2, 16, 8, 4
    args.queries, args.negatives, args.repeats = 8, 16, 1

  arrays = batch(args.images, args.size, args.channels, args.classes)
  loss = functools.partial(reco_loss, num_queries=args.queries, num_negatives=args.negatives)
  forward = lambda embedding, labels, probs, key: loss(embedding, labels, probs, key=key)
  inputs = (*arrays, jax.random.key(1))
  print(
    f"{jax.devices()[0].device_kind}: embedding {arrays[0].shape}, {args.classes} classes, "
    f"{args.queries} queries, {args.negatives} negatives"
  )
  report("forward", forward, inputs, args.repeats)
  report("forward + backward", jax.value_and_grad(forward), inputs, args.repeats)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # kilobytes on Linux
  print(f"peak resident memory of the process {peak:.0f} MiB")


if __name__ == "__main__":
  main()
