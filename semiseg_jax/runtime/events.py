"""TensorBoard's events, written by no thread: what goes wrong is raised where they arise."""

import functools
import pathlib
import tempfile
import time

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from semiseg_jax.buckets import is_bucket


class Events:
  """A file of events in a folder, begun with the first one; in a bucket, where nothing is appended
  to, another one behind every `flush`.

  purge_step: events from there on, of an earlier start, are void. All that writes may raise
  OSError.
  """

  def __init__(self, folder: pathlib.Path, purge_step: int | None = None):
    self._folder, self._purge_step = folder, purge_step
    self._kept_here = None
    if is_bucket(folder):
      self._kept_here = tempfile.TemporaryDirectory(prefix="semiseg_jax_")

  @functools.cached_property
  def _writer(self) -> EventsWriter:
    folder = pathlib.Path(self._kept_here.name) if self._kept_here else self._folder
    folder.mkdir(parents=True, exist_ok=True)
    end = f".{time.time_ns()}"  # its own name has the second, within which several may begin
    writer = EventsWriter(str(folder / "events"), end)
    if self._purge_step is not None:
      begins = SessionLog(status=SessionLog.START)
      for part in ({"file_version": "brain.Event:2"}, {"session_log": begins}):
        writer.write_event(Event(wall_time=time.time(), step=self._purge_step, **part))
      self._purge_step = None
    return writer

  def scalar(self, name: str, value: float, step: int) -> None:
    self._write(summary.scalar(name, value), step)

  def image(self, name: str, picture: np.ndarray, step: int) -> None:
    """picture: uint8 [H,W,3]."""
    self._write(summary.image(name, picture, dataformats="HWC"), step)

  def flush(self) -> None:
    if self._kept_here:
      self._send(pathlib.Path(self._kept_here.name))
    else:
      self._writer.flush()

  def close(self) -> None:
    if self._kept_here:
      with self._kept_here as folder:
        self._send(pathlib.Path(folder))
    else:
      self._writer.close()

  def _send(self, here: pathlib.Path) -> None:
    """All goes into the bucket; what doesn't get there stays for the next time."""
    if writer := vars(self).pop("_writer", None):
      writer.close()
    for path in sorted(here.iterdir()):
      (self._folder / path.name).write_bytes(path.read_bytes())
      path.unlink()

  def _write(self, content: Summary, step: int) -> None:
    self._writer.write_event(Event(wall_time=time.time(), step=step, summary=content))
