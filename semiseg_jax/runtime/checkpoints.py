"""Orbax checkpoints: written in the background, atomic, the newest damaged one skipped.

Several may read what one is writing: readers change nothing, and look again where a checkpoint
was replaced under them.
"""

import contextlib
import functools
import glob
import importlib
import logging
import pathlib
import re
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax

from semiseg_jax.buckets import is_bucket, is_cut_off, named
from semiseg_jax.contract import Tree
from semiseg_jax.paths import user_path
from semiseg_jax.runtime.errors import first_line

_COMMITTED = "commit_success.txt"  # Orbax's mark


class Checkpoints:
  """The newest `keep` checkpoints under a directory: a pytree of arrays and a JSON dict each.

  Until something is saved, nothing there is touched.
  """

  def __init__(self, directory: str | pathlib.Path, keep: int):
    directory, self._keep = user_path(directory), keep
    self.directory = directory if is_bucket(directory) else directory.absolute()
    self._literal, self._alias = _literal(self.directory)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: type | None, *_) -> None:
    # what went wrong first is on its way already
    with self._writing() if kind is None else contextlib.suppress(Exception):
      for name in {"_reader", "_writer"} & vars(self).keys():
        getattr(self, name).close()
    if self._alias:
      self._alias.cleanup()

  @functools.cached_property
  def _together(self) -> Any:
    """So that hosts, when two of these write at a time, wait for each other in the right one."""
    return _orbax().options.MultiprocessingOptions(barrier_sync_key_prefix=self.directory.name)

  @functools.cached_property
  def _handlers(self) -> dict[str, Any]:
    ocp, options = _orbax(), {"multiprocessing_options": self._together}
    return {
      "arrays": ocp.StandardCheckpointHandler(**options),
      "about": ocp.JsonCheckpointHandler(**options),
    }

  @functools.cached_property
  def _reader(self) -> Any:
    """Not Orbax's manager, which is lost where a checkpoint goes while it lists them."""
    ocp = _orbax()
    handler = ocp.CompositeCheckpointHandler(**self._handlers)
    return ocp.Checkpointer(handler, multiprocessing_options=self._together)

  @functools.cached_property
  def _writer(self) -> Any:
    ocp = _orbax()
    self.directory.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
      max_to_keep=self._keep, cleanup_tmp_directories=True, multiprocessing_options=self._together
    )
    return ocp.CheckpointManager(self._literal, options=options, item_handlers=self._handlers)

  def save(self, step: int, arrays: Tree, about: dict[str, Any]) -> None:
    """Returns once the arrays are copied; the writing goes on beside the training.

    Raises OSError, here or later, with the directory and what the system said.
    """
    ocp = _orbax()
    items = ocp.args.Composite(arrays=ocp.args.StandardSave(arrays), about=ocp.args.JsonSave(about))
    with self._writing():
      if step in self._writer.all_steps():  # a run that was resumed before it comes by again
        self._writer.wait_until_finished()
        self._writer.delete(step)
      self._writer.save(step, args=items)

  def wait(self) -> None:
    """Until everything is on disk; raises as `save` does."""
    if "_writer" in vars(self):
      with self._writing():
        self._writer.wait_until_finished()

  def latest_step(self) -> int | None:
    return max(self._steps(), default=None)

  def path(self, step: int) -> pathlib.Path:
    return self.directory / str(step)

  def about(self, check: Callable[[dict[str, Any]], Any] = dict) -> dict[str, Any] | None:
    """The JSON dict of the newest readable checkpoint; None if there is no checkpoint.

    check: raises for a dict that is of no use, as if it were damaged.
    """
    return self._newest(lambda step: self._about(step, check))

  def restore(
    self, like: Tree, check: Callable[[dict[str, Any]], Any] = dict
  ) -> tuple[Tree, dict[str, Any]] | None:
    """The newest readable checkpoint as (arrays laid out like `like`, dict); None if there is none.

    Whatever devices wrote it: jax arrays come back laid out as in `like`, numpy's as numpy's.
    check: as of `about`. A damaged one is skipped with a warning. Raises ValueError if every one is
    damaged, or if the arrays have other names or shapes than `like`: the checkpoint belongs to
    another model.
    """
    ocp = _orbax()
    on_devices = lambda x: ocp.utils.to_shape_dtype_struct(x) if isinstance(x, jax.Array) else x
    shapes = jax.tree.map(on_devices, like)
    found = self._newest(lambda step: (self._arrays(step, shapes), self._about(step, check)))
    return found and (jax.tree.map(_in_form, found[0], like), found[1])

  def _steps(self) -> list[int]:
    """Those on disk now, which another process may be writing: a look while one comes and another
    goes may see neither, so it is taken until two agree. A bucket is listed as of one moment."""
    found, before = self._look(), None
    while found != before and not is_bucket(self.directory):
      found, before = self._look(), found
    return found

  def _look(self) -> list[int]:
    with named(self.directory):
      if not self.directory.is_dir():
        return []
      steps = (path for path in self.directory.iterdir() if path.name.isdecimal())
      return sorted((int(path.name) for path in steps if _is_whole(path)), reverse=True)

  def _newest(self, read: Callable[[int], Any]) -> Any:
    steps = self._steps()
    for step in steps:
      try:
        return read(step)
      except (OtherModelError, ImportError, MemoryError):
        raise
      except Exception as error:  # whatever a truncated or missing file makes its reader raise
        if is_bucket(self.directory) and is_cut_off(error):
          raise ConnectionError(f"{self.path(step)} can't be read: {first_line(error)}") from error
        if self._steps() != steps:  # it was not damaged but replaced
          return self._newest(read)
        logging.warning("skipping damaged checkpoint %s: %s", self.path(step), first_line(error))
    if steps:
      raise ValueError(
        f"none of the checkpoints {steps} in {self.directory} can be read: restore them from a "
        "backup, or move the folder away to start over"
      )
    return None

  def _arrays(self, step: int, shapes: Tree) -> Tree:
    path = self._literal / str(step)
    stored = _shapes_by_name(self._reader.metadata(path).item_metadata["arrays"].tree)
    wanted = _shapes_by_name(shapes)
    for name in sorted(stored.keys() | wanted.keys()):
      if stored.get(name) != wanted.get(name):
        raise OtherModelError(
          f"checkpoint {self.path(step)} is of another model: {name} is "
          f"{stored.get(name, 'absent')} there and {wanted.get(name, 'absent')} in this config; "
          "use the config it was trained with, or another --workdir"
        )
    ocp = _orbax()
    items = ocp.args.Composite(arrays=ocp.args.StandardRestore(shapes))
    return self._reader.restore(path, args=items)["arrays"]

  def _about(self, step: int, check: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    ocp = _orbax()
    items = ocp.args.Composite(about=ocp.args.JsonRestore())
    about = self._reader.restore(self._literal / str(step), args=items)["about"]
    check(about)
    return about

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Says in one line, with the directory, what went wrong in Orbax's threads."""
    try:
      yield
    except Exception as error:  # each of its layers has its own
      raise OSError(
        f"a checkpoint can't be written to {self.directory}: {_reason(error)}; {self._last()}. "
        "When that is mended the same command goes on"
      ) from error

  def _last(self) -> str:
    """What a run can go on from, for people."""
    try:
      kept = self.latest_step()
    except OSError:  # of a bucket to which there is no way
      return "what is there already can't be seen now"
    return "no checkpoint is there" if kept is None else f"the last whole one is of step {kept}"


class OtherModelError(ValueError):
  """A checkpoint's arrays are not those of the model that asks for them."""


def _literal(directory: pathlib.Path) -> tuple[pathlib.Path, tempfile.TemporaryDirectory | None]:
  """(the directory by a name that is no pattern, to which Orbax searches for files; what holds that
  name, if it is another). In a bucket nothing can have another: ValueError for a pattern there."""
  if glob.escape(str(directory)) == str(directory) and "\\" not in str(directory):
    return directory, None
  if is_bucket(directory):
    raise ValueError(
      f"{directory}: the name of a directory in a bucket must be without any of []*?\\, which the "
      "tools for buckets take as a pattern"
    )
  alias = tempfile.TemporaryDirectory(prefix="semiseg_jax_")
  path = pathlib.Path(alias.name, "checkpoints")
  path.symlink_to(directory, target_is_directory=True)
  return path, alias


def _is_whole(step: pathlib.Path) -> bool:
  """On a file system a checkpoint gets its name once it is; in a bucket it is marked then."""
  return not is_bucket(step) or (step / _COMMITTED).exists()


def _in_form(x: Any, like: Any) -> Any:
  """An array as `like` lies in its devices' memory too, which orbax knows nothing of."""
  same = not isinstance(x, jax.Array) or x.format == like.format
  return x if same else jax.device_put(x, like.format)


def _reason(error: BaseException) -> str:
  """What the system said, out of the layers that other libraries have put around it."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  said = re.search(r"([^:\[\]]+) \[os_error_code=", str(error))
  return said[1].strip() if said else first_line(error).partition(" [")[0]  # whence in the code


def _orbax() -> types.ModuleType:
  """Imported with the first checkpoint, since networks in other files need none of it."""
  module = importlib.import_module("orbax.checkpoint")
  _listen_less()
  return module


@functools.cache
def _listen_less() -> None:
  """Of Orbax and TensorStore, to what is raised, too."""
  logging.getLogger("absl").addFilter(_is_news)
  logging.getLogger("asyncio").addFilter(_is_of_others)
  sys.unraisablehook = functools.partial(_say_unless_closed, sys.unraisablehook)


def _say_unless_closed(say: Callable, unraisable: Any) -> None:
  """Not what TensorStore's threads still have to say of a read that failed and was begun again."""
  if str(unraisable.exc_value) != "Event loop is closed":
    say(unraisable)


def _is_news(record: logging.LogRecord) -> bool:
  """Not so what Orbax logs of errors that it raises, too, and of files that went while they were
  read, which is looked after here."""
  return "orbax" not in record.pathname or not (
    record.exc_info or record.levelno == logging.WARNING
  )


def _is_of_others(record: logging.LogRecord) -> bool:
  """Not so the second of two arrays whose writing failed: Orbax raises the first one's error."""
  return "OCDBT database" not in record.getMessage()


def _shapes_by_name(tree: Tree) -> dict[str, tuple]:
  name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
  return {name(path): tuple(leaf.shape) for path, leaf in jax.tree.leaves_with_path(tree)}
