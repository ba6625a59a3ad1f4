"""What is gathered of the steps between two logs."""

import math
import time
from typing import Any

import jax
import numpy as np


class Window:
  """The steps since the last log: their metrics, still on the device, and their time."""

  def __init__(self, images_per_step: int):
    self._images_per_step = images_per_step
    self._metrics: list[dict[str, jax.Array]] = []
    self.restart()

  def restart(self) -> None:
    """Leaves what was done since the last flush out of the time."""
    self._start, self._waited = time.monotonic(), 0.0

  def waited_for(self, function) -> Any:
    """Calls it and counts the time as waiting for input."""
    start = time.monotonic()
    value = function()
    self._waited += time.monotonic() - start
    return value

  def add(self, metrics: dict[str, jax.Array]) -> None:
    self._metrics.append(metrics)

  def flush(self, step: int) -> tuple[dict[str, float | list[float]], int | None]:
    """(means over the window's steps, the first step whose gradient is not finite); what has a
    value for each class, a list, is that of the last step.

    Losses without a valid pixel are NaN with a zero gradient, as in the originals: they are left
    out of the means. Waits for the device.
    """
    rows = jax.device_get(self._metrics)
    elapsed = time.monotonic() - self._start
    first = step - len(rows) + 1
    bad = [first + i for i, row in enumerate(rows) if not math.isfinite(row["gradient_norm"])]
    images = len(rows) * self._images_per_step
    metrics = {name: _summary([row[name] for row in rows]) for name in rows[0]} if rows else {}
    metrics["images_per_second"] = images / elapsed
    metrics["input_wait"] = self._waited / elapsed
    self._metrics = []
    self.restart()
    return metrics, bad[0] if bad else None


def _summary(values: list[np.ndarray]) -> float | list[float]:
  if values[0].ndim:
    return values[-1].tolist()
  finite = [float(value) for value in values if math.isfinite(value)]
  return sum(finite) / len(finite) if finite else math.nan
