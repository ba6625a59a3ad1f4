"""Files that grow: in a bucket nothing does, so there they are sent as a whole."""

import pathlib
import tempfile

from semiseg_jax.buckets import is_bucket, named


class GrowingFile:
  """A text to which is appended; one in a bucket grows in `local`, on this machine, from what it
  was, and is there after `flush`. All that writes may raise OSError."""

  def __init__(self, path: pathlib.Path):
    self.path = self.local = path
    self._folder = None
    if is_bucket(path):
      self._folder = tempfile.TemporaryDirectory(prefix="semiseg_jax_")
      self.local = pathlib.Path(self._folder.name, path.name)
      with named(path):
        if path.exists():
          self.local.write_bytes(path.read_bytes())

  def append(self, text: str) -> None:
    with self.local.open("a") as file:
      file.write(text)

  def flush(self) -> None:
    if self._folder and self.local.exists():
      self.path.write_bytes(self.local.read_bytes())

  def close(self) -> None:
    self.flush()
    if self._folder:
      self._folder.cleanup()
