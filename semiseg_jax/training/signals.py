"""A polite end: SIGTERM and SIGINT ask the loop to save and stop at the next step."""

import signal


class StopSignal:
  """Context manager; `requested` turns True at the first signal, a second SIGINT interrupts."""

  def __init__(self):
    self.requested = False
    self._previous = {}

  def __enter__(self) -> "StopSignal":
    for number in (signal.SIGTERM, signal.SIGINT):
      self._previous[number] = signal.signal(number, self._ask)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _ask(self, number, _) -> None:
    if self.requested and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.requested = True
