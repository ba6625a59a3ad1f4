"""Times the contrast of C3-SemiSeg as masks and by loops: `... pixel_contrast --help`.

The defaults are a device's batch of the original on Cityscapes, four labelled images and four
unlabelled ones, with nearly every class in each. "ours" draws the pixels and computes the loss in
one program. "plain" is the definition: groups are found in loops on the host, and one matrix holds
all pairs; it is compiled for each number of groups that comes along, which is not timed. Value and
gradient are compared before anything is timed. The shortest of several runs counts.
"""

import argparse
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.losses.pixel_contrast import draw_priorities, pixel_contrast_loss
from tests.benchmarks.timing import seconds
from tests.compare import assert_same
from tests.losses.plain_contrast import find_groups, plain_contrast

_PATCH = 8  # pixels of one label, so that classes come in regions
_RIGHT = 0.7  # share of predictions that are right
_TEMPERATURE = 0.15

Arrays = dict[str, np.ndarray]


def make_inputs(images: int, size: tuple[int, int], channels: int, num_classes: int) -> Arrays:
  """Embeddings of student and teacher [B,h,w,D], labels and predictions [B,h,w]."""
  rng = np.random.default_rng(0)
  patches = (images, *(-(-side // _PATCH) for side in size))
  labels = rng.integers(0, num_classes, patches).repeat(_PATCH, 1).repeat(_PATCH, 2)
  labels = labels[:, : size[0], : size[1]].astype(np.int32)
  other = rng.integers(0, num_classes, labels.shape, np.int32)
  embeddings = rng.normal(size=(2, *labels.shape, channels)).astype(np.float32)
  return {
    "embedding": embeddings[0],
    "contrast": embeddings[1],
    "labels": labels,
    "predictions": np.where(rng.random(labels.shape) < _RIGHT, labels, other),
  }


def compiled(function: Callable, args: tuple) -> tuple[Callable, float]:
  """The program, and the mebibytes of its temporary buffers."""
  program = jax.jit(function).lower(*args).compile()
  return program, program.memory_analysis().temp_size_in_bytes / 2**20


def report(inputs: Arrays, num_classes: int, num_pixels: int, repeats: int) -> None:
  """Checks both forms against each other and prints a line for each and either direction."""
  images, dim = len(inputs["labels"]), inputs["embedding"].shape[-1]
  key = jax.random.key(0)
  maps = {name: x.reshape(images, -1, dim) for name, x in inputs.items() if x.ndim == 4}
  flat = {name: x.reshape(images, -1) for name, x in inputs.items() if x.ndim == 3}
  priorities = draw_priorities(key, jnp.arange(images), flat["labels"].shape[1])
  find = functools.partial(find_groups, num_pixels=num_pixels)
  sampling = flat["labels"], flat["predictions"], np.asarray(priorities)
  groups = find(*sampling)

  ours = functools.partial(
    pixel_contrast_loss, num_classes=num_classes, num_pixels=num_pixels, temperature=_TEMPERATURE
  )
  forms = {
    "plain": (
      functools.partial(plain_contrast, temperature=_TEMPERATURE),
      (maps["embedding"], maps["contrast"], groups),
    ),
    "ours": (
      lambda *args: ours(*args[:-1], key=args[-1]),
      (*(inputs[name] for name in ("embedding", "labels", "predictions", "contrast")), key),
    ),
  }
  print(f"{num_pixels} pixels a group, {len(groups[1])} groups of {images * num_classes}")
  print(f"  plain    sampling on the host {seconds(find, sampling, repeats) * 1e3:9.1f} ms")
  results = {}
  for direction in ("forward", "forward + backward"):
    for name, (loss, args) in forms.items():
      function = loss if direction == "forward" else jax.value_and_grad(loss)
      args = jax.device_put(args)
      program, memory = compiled(function, args)
      results[name] = program(*args)
      milliseconds = seconds(program, args, repeats) * 1e3
      print(
        f"  {name:<9}{direction:<20}{milliseconds:9.1f} ms   temporary {memory:8.1f} MiB",
        flush=True,
      )
  value, grad = results["ours"]
  assert_same((value, grad.reshape(images, -1, dim)), results["plain"])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--images", type=int, default=8)
  parser.add_argument("--height", type=int, default=33, help="of the features")
  parser.add_argument("--width", type=int, default=65)
  parser.add_argument("--channels", type=int, default=256)
  parser.add_argument("--classes", type=int, default=19)
  parser.add_argument("--pixels", type=int, nargs="+", default=[20, 64], help="of each group")
  parser.add_argument("--repeats", type=int, default=4)
  parser.add_argument("--small", action="store_true", help="a size that takes no time")
  args = parser.parse_args()
  if args.small:
    args.images, args.height, args.width, args.channels, args.classes = 2, 16, 24, 8, 4
    args.pixels, args.repeats = [6], 1

  inputs = make_inputs(args.images, (args.height, args.width), args.channels, args.classes)
  print(f"{jax.devices()[0].device_kind}: embedding {inputs['embedding'].shape}")
  for num_pixels in args.pixels:
    report(inputs, args.classes, num_pixels, args.repeats)


if __name__ == "__main__":
  main()
