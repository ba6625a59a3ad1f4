"""How long a call takes."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def seconds(function: Callable, args: tuple[Any, ...], repeats: int) -> float:
  """The shortest of several runs, after one that is not counted: it may compile."""
  times = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    times.append(time.perf_counter() - start)
  return min(times[1:])


def milliseconds(function: Callable[[], object], calls: int, rounds: int = 5) -> float:
  """Median over rounds of the time of one of so many calls; waits for the device at the end."""
  times = []
  for _ in range(rounds):
    start = time.perf_counter()
    for _ in range(calls):
      result = function()
    jax.block_until_ready(result)
    times.append(time.perf_counter() - start)
  return 1000 * statistics.median(times) / calls
