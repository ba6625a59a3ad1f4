"""Times the contrast with a memory bank by sums and by pairs: `... memory_bank --help`.

The defaults are a batch of Cityscapes under DeepLabV2, four labelled images and two views of four
unlabelled ones, 65x65 features each, with as many pixels of every class. Both forms get the same
pixels, scores and bank, and the pairs have their pixels in order by class already. Value and
gradients are compared before anything is timed. The shortest of several runs counts.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp

from semiseg_jax.losses.bank import Bank, filled
from semiseg_jax.losses.memory import contrastive_loss, selected_contrast
from tests.benchmarks.timing import seconds
from tests.losses.pairwise import contrastive_loss_direct
from tests.models import parts, stacked

Arrays = dict[str, jax.Array]

_INPUTS = ("features", "scores", "memory_scores")  # what has a gradient


def make_inputs(pixels: int, num_classes: int, slots: int, dim: int) -> Arrays:
  """Pixels [K,P,D] with scores [K,P], and a full bank with scores [K,S]."""
  keys = jax.random.split(jax.random.key(0), 4)
  per_class = pixels // num_classes
  return {
    "features": jax.random.normal(keys[0], (num_classes, per_class, dim)),
    "scores": jax.random.uniform(keys[1], (num_classes, per_class)),
    "rows": jax.random.normal(keys[2], (num_classes, slots, dim)),
    "memory_scores": jax.random.uniform(keys[3], (num_classes, slots)),
  }


def _bank(rows: jax.Array) -> Bank:
  num_classes, slots, _ = rows.shape
  return Bank(rows, jnp.full(num_classes, slots), jnp.zeros(num_classes, int))


def _flat(features: jax.Array) -> tuple[jax.Array, jax.Array]:
  num_classes, per_class, dim = features.shape
  return features.reshape(-1, dim), jnp.repeat(jnp.arange(num_classes), per_class)


def by_sums(inputs: Arrays, rows: jax.Array) -> tuple[jax.Array, None]:
  features, scores, memory_scores = (inputs[name] for name in _INPUTS)
  loss = contrastive_loss(*_flat(features), scores.reshape(-1), _bank(rows), memory_scores)
  return loss, None


def by_pairs(inputs: Arrays, rows: jax.Array) -> tuple[jax.Array, None]:
  features, scores, memory_scores = (inputs[name] for name in _INPUTS)
  everywhere, is_row = jnp.ones(scores.shape, bool), filled(_bank(rows))
  return contrastive_loss_direct(features, everywhere, scores, rows, is_row, memory_scores), None


def with_selectors(inputs: dict, rows: jax.Array) -> tuple[jax.Array, dict]:
  """What a step computes: the sums, the scores that they need, and the selectors' statistics."""
  network, _, batch_stats = parts.split(stacked.Both(*rows.shape[::2]))
  run = lambda both: selected_contrast(
    both.selectors, both.memory_selectors, *_flat(inputs["features"]), _bank(rows)
  )
  return network.apply(inputs["selectors"], batch_stats, run)


def compiled(loss: Callable, backward: bool, arrays: Arrays) -> tuple[Callable, tuple, float]:
  """The program, its arguments, and the mebibytes of its temporary buffers."""
  inputs = {name: arrays[name] for name in _INPUTS}
  if loss is with_selectors:
    _, params, _ = parts.split(stacked.Both(*arrays["rows"].shape[::2]))
    inputs = {"features": arrays["features"], "selectors": params}
  args = jax.device_put((inputs, arrays["rows"]))
  function = jax.value_and_grad(loss, has_aux=True) if backward else loss
  program = jax.jit(function).lower(*args).compile()
  return program, args, program.memory_analysis().temp_size_in_bytes / 2**20


def check(arrays: Arrays) -> None:
  """Raises AssertionError unless both forms have one value and one gradient."""
  results = []
  for loss in (by_sums, by_pairs):
    program, args, _ = compiled(loss, True, arrays)
    (value, _), grads = program(*args)
    results.append((value, grads))
  stacked.assert_close(results[0][0], results[1][0], 1e-5)
  stacked.assert_close(results[0][1], results[1][1], 1e-4)


def report(arrays: Arrays, repeats: int, limit_gib: float) -> None:
  """One line for each form and direction; a program above the limit is compiled but not run."""
  forms = {"sums": by_sums, "pairs": by_pairs, "selectors + sums": with_selectors}
  for backward in (False, True):
    measured = {}
    for name, loss in forms.items():
      program, args, memory = compiled(loss, backward, arrays)
      fits = memory <= limit_gib * 2**10
      measured[name] = seconds(program, args, repeats) if fits else None
      shown = f"{measured[name] * 1e3:9.1f} ms" if fits else "  not run   "
      direction = "forward + backward" if backward else "forward"
      print(f"  {name:<18}{direction:<20}{shown}   temporary {memory:8.1f} MiB", flush=True)
    if measured["pairs"]:
      print(f"  pairs / sums: {measured['pairs'] / measured['sums']:.1f} times the time")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--images", type=int, default=12)
  parser.add_argument("--size", type=int, default=65, help="height and width of the features")
  parser.add_argument("--channels", type=int, default=256)
  parser.add_argument("--classes", type=int, default=19)
  parser.add_argument("--slots", type=int, nargs="+", default=[256, 4096], help="per class")
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--limit_gib", type=float, default=16, help="of temporary buffers, to run")
  parser.add_argument("--small", action="store_true", help="a size that takes no time")
  args = parser.parse_args()
  if args.small:
    args.images, args.size, args.channels, args.classes = 2, 9, 8, 3
    args.slots, args.repeats = [8], 1

  pixels = args.images * args.size**2
  print(f"{jax.devices()[0].device_kind}: {pixels} pixels, {args.classes} classes")
  check(make_inputs(min(pixels, 2000), args.classes, min(args.slots), args.channels))
  for slots in args.slots:
    print(f"{slots} slots a class, {args.channels} channels")
    report(make_inputs(pixels, args.classes, slots, args.channels), args.repeats, args.limit_gib)


if __name__ == "__main__":
  main()
