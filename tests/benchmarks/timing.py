"""How long a call takes."""

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
