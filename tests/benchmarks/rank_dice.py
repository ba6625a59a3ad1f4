"""Times RankDice beside one sort of the same probabilities: `python -m tests.benchmarks.rank_dice`.

Softmax maps of 19 classes, of smooth logits and noise; "offsets" adds 3...-9 to the classes, so
that some are small or pruned. Decisions take probabilities [1,H,W,K]. numpy.sort sorts each class
of them, once as they are and once in an array that has the classes first. All take turns, and
the shortest of several runs counts. T-RNA runs on small maps, since its work grows with the number
of pixels times its root.
"""

import argparse
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.evaluation import rank_dice
from semiseg_jax.evaluation.decide import argmax

_CLASSES = 19
_KINDS = {  # weights of the smooth part and of the noise, and the classes' offsets
  "smooth": (5.0, 0.5, 0.0),
  "noisy": (2.0, 1.5, 0.0),
  "offsets": (5.0, 0.5, np.linspace(3, -9, _CLASSES)),
}


def make_probs(kind: str, size: tuple[int, int]) -> np.ndarray:
  """float32 [1,*size,19]; the smooth part is drawn on a grid of 8 cells in height."""
  rng = np.random.default_rng(0)
  cell = size[0] // 8
  grid = rng.normal(size=(8, size[1] // cell, _CLASSES)).astype(np.float32)
  grid = jax.image.resize(grid, (*size, _CLASSES), "linear")
  smooth, noise, offsets = _KINDS[kind]
  logits = smooth * grid + noise * rng.normal(size=grid.shape) + offsets
  return np.asarray(jax.nn.softmax(jnp.float32(logits)))[None]


def shortest(calls: dict[str, Callable], repeats: int) -> dict[str, float]:
  """Milliseconds of each call, after one that is not counted."""
  times: dict[str, list[float]] = {name: [] for name in calls}
  for _ in range(repeats + 1):
    for name, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready(call())
      times[name].append(time.perf_counter() - start)
  return {name: 1e3 * min(found[1:]) for name, found in times.items()}


def report(kind: str, size: tuple[int, int], solvers: list[str], repeats: int) -> None:
  """A line for each decision: milliseconds, and as a multiple of either sort."""
  probs = make_probs(kind, size)
  rows = np.ascontiguousarray(np.moveaxis(probs, -1, 1)).reshape(_CLASSES, -1)
  pixels = probs.reshape(-1, _CLASSES)
  on_device = jnp.asarray(probs)
  calls: dict[str, Callable] = {
    "sort": lambda: np.sort(pixels, 0),
    "sort, classes first": lambda: np.sort(rows, 1),
    "argmax": functools.partial(jax.jit(argmax), on_device),
  }
  for solver in solvers:
    calls[solver] = functools.partial(rank_dice, on_device, solver)
    if solver == "ba":
      published = {"form": "fork", "truncate_mean": True}
      calls["ba as published"] = functools.partial(rank_dice, on_device, solver, **published)
  times = shortest(calls, repeats)
  print(f"{kind} {probs.shape}")
  for name, taken in times.items():
    ratios = [taken / times[sort] for sort in ("sort", "sort, classes first")]
    print(f"  {name:<20}{taken:9.2f} ms {ratios[0]:8.2f} {ratios[1]:8.2f} sorts", flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--size", type=int, nargs=2, default=(256, 512), help="height and width")
  parser.add_argument("--refined-size", type=int, nargs=2, default=(64, 64), help="for T-RNA")
  parser.add_argument("--repeats", type=int, default=15)
  args = parser.parse_args()
  print(f"{jax.devices()[0].device_kind}, {len(jax.devices())} device(s)")
  for kind in _KINDS:
    report(kind, tuple(args.size), ["ba", "rma"], args.repeats)
  for kind in _KINDS:
    report(kind, tuple(args.refined_size), ["ba", "trna", "exact"], 3)


if __name__ == "__main__":
  main()
