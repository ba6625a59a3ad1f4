"""TensorBoard's events, written by no thread: what goes wrong is raised where they arise."""

import functools
import pathlib
import time

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class Events:
  """A file of events in a folder, begun with the first one.

  purge_step: events from there on, of an earlier start, are void. All that writes may raise
  OSError.
  """

  def __init__(self, folder: pathlib.Path, purge_step: int | None = None):
    self._folder, self._purge_step = folder, purge_step

  @functools.cached_property
  def _writer(self) -> EventsWriter:
    self._folder.mkdir(parents=True, exist_ok=True)
    writer = EventsWriter(str(self._folder / "events"))
    if self._purge_step is not None:
      begins = SessionLog(status=SessionLog.START)
      for part in ({"file_version": "brain.Event:2"}, {"session_log": begins}):
        writer.write_event(Event(wall_time=time.time(), step=self._purge_step, **part))
    return writer

  def scalar(self, name: str, value: float, step: int) -> None:
    self._write(summary.scalar(name, value), step)

  def image(self, name: str, picture: np.ndarray, step: int) -> None:
    """picture: uint8 [H,W,3]."""
    self._write(summary.image(name, picture, dataformats="HWC"), step)

  def flush(self) -> None:
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()

  def _write(self, content: Summary, step: int) -> None:
    self._writer.write_event(Event(wall_time=time.time(), step=step, summary=content))
