"""A polite end: SIGTERM and SIGINT ask the loop to save and stop at the next step."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

from semiseg_jax.runtime.errors import INTERRUPTED

_AGAIN = 0.1  # seconds


class StopSignal:
  """Context manager: asks to stop.

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
    self._requested = True
    if self._several:
      signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def ends_with(code: int) -> Iterator[None]:
  """Where all that is done is on disk already: SIGTERM and SIGINT end the process with that code.

  Of several processes JAX listens, and the next `StopSignal` stops them.
  """
  again: list[threading.Timer] = []

  def end(*_) -> None:
    """Once more soon: what is raised in a weak reference's callback is lost."""
    again.append(threading.Timer(_AGAIN, os.kill, (os.getpid(), signal.SIGTERM)))
    again[-1].start()
    raise SystemExit(code)

  numbers = () if jax.process_count() > 1 else (signal.SIGTERM, signal.SIGINT)
  previous = {number: signal.signal(number, end) for number in numbers}
  try:
    yield
  finally:
    for timer in again:
      timer.cancel()
    for number, handler in previous.items():
      signal.signal(number, handler)
  if again:
    raise SystemExit(code)


@contextlib.contextmanager
def second_interrupt_ends(say: Callable[[int], str]) -> Iterator[None]:
  """A second Ctrl-C ends the process at once, whatever it is in the middle of.

  say(n): what is printed at the first and the second one. Python's own handlers wait until the
  main thread is back from the compiler, which may take minutes; a thread does not.
  """
  awake, wakes = socket.socketpair()
  wakes.setblocking(False)
  previous = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)

  def watch() -> None:
    count = 0
    while numbers := awake.recv(64):
      for _ in range(numbers.count(signal.SIGINT)):
        count += 1
        print(f"\n{say(count)}", file=sys.stderr, flush=True)
        if count == 2:
          os._exit(INTERRUPTED)

  thread = threading.Thread(target=watch, daemon=True)
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(previous)
    wakes.close()
    thread.join()
    awake.close()
