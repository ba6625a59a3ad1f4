"""A polite end: SIGTERM and SIGINT ask the loop to save and stop at the next step."""

import contextlib
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class StopSignal:
  """Context manager; a second SIGINT interrupts.

  Of several processes any one may get the signal; all stop at the same step. There JAX listens to
  SIGTERM, so SIGINT is passed on as that.
  """

  def __init__(self):
    self._requested = False
    self._several = jax.process_count() > 1
    self._previous = {}

  def __enter__(self) -> "StopSignal":
    for number in (signal.SIGINT,) if self._several else (signal.SIGTERM, signal.SIGINT):
      self._previous[number] = signal.signal(number, self._ask)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def stops_after(self, step: int) -> bool:
    """Whether to stop now, having done `step` steps. To be asked after every step."""
    if self._several:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._requested

  def _ask(self, number, _) -> None:
    if self._requested and number == signal.SIGINT:
      raise KeyboardInterrupt
    self._requested = True
    if self._several:
      signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def ends_with(code: int) -> Iterator[None]:
  """Where all that is done is on disk already: SIGTERM and SIGINT end the process with that code.

  Of several processes JAX listens, and the next `StopSignal` stops them.
  """

  def end(*_) -> None:
    raise SystemExit(code)

  numbers = () if jax.process_count() > 1 else (signal.SIGTERM, signal.SIGINT)
  previous = {number: signal.signal(number, end) for number in numbers}
  try:
    yield
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
