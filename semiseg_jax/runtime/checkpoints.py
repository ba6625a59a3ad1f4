"""Orbax checkpoints: written in the background, atomic, the newest damaged one skipped."""

import functools
import importlib
import json
import logging
import pathlib
import types
from collections.abc import Callable
from typing import Any

import jax

from semiseg_jax.contract import Tree


class Checkpoints:
  """The newest `keep` checkpoints under a directory: a pytree of arrays and a JSON dict each."""

  def __init__(self, directory: str | pathlib.Path, keep: int):
    self.directory, ocp = pathlib.Path(directory).absolute(), _orbax()
    # so that hosts, when two of these write at a time, wait for each other in the right one
    together = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=self.directory.name)
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, cleanup_tmp_directories=True, multiprocessing_options=together
    )
    handlers = {
      "arrays": ocp.StandardCheckpointHandler(multiprocessing_options=together),
      "about": ocp.JsonCheckpointHandler(multiprocessing_options=together),
    }
    self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_) -> None:
    self._manager.close()

  def save(self, step: int, arrays: Tree, about: dict[str, Any]) -> None:
    """Returns once the arrays are copied; the writing goes on beside the training."""
    if step in self._manager.all_steps():  # a run that was resumed before it comes by again
      self._manager.wait_until_finished()
      self._manager.delete(step)
    ocp = _orbax()
    items = ocp.args.Composite(arrays=ocp.args.StandardSave(arrays), about=ocp.args.JsonSave(about))
    self._manager.save(step, args=items)

  def wait(self) -> None:
    """Until everything is on disk."""
    self._manager.wait_until_finished()

  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  def path(self, step: int) -> pathlib.Path:
    return self.directory / str(step)

  def about(self) -> dict[str, Any] | None:
    """The JSON dict of the newest readable checkpoint; None if there is no checkpoint."""
    return self._newest(self._about)

  def restore(self, like: Tree) -> tuple[Tree, dict[str, Any]] | None:
    """The newest readable checkpoint as (arrays laid out like `like`, dict); None if there is none.

    Whatever devices wrote it: jax arrays come back laid out as in `like`, numpy's as numpy's.
    A damaged one is skipped with a warning. Raises ValueError if every one is damaged, or if the
    arrays have other names or shapes than `like`: the checkpoint belongs to another model.
    """
    ocp = _orbax()
    on_devices = lambda x: ocp.utils.to_shape_dtype_struct(x) if isinstance(x, jax.Array) else x
    shapes = jax.tree.map(on_devices, like)
    return self._newest(lambda step: (self._arrays(step, shapes), self._about(step)))

  def _newest(self, read: Callable[[int], Any]) -> Any:
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      try:
        return read(step)
      except OtherModelError:
        raise
      except Exception as error:  # whatever a truncated or missing file makes its reader raise
        logging.warning("skipping damaged checkpoint %s: %s", self.path(step), first_line(error))
    if steps:
      raise ValueError(
        f"none of the checkpoints {steps} in {self.directory} can be read: restore them from a "
        "backup, or move the folder away to start over"
      )
    return None

  def _arrays(self, step: int, shapes: Tree) -> Tree:
    stored = _shapes_by_name(self._manager.item_metadata(step)["arrays"].tree)
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
    return self._manager.restore(step, args=items)["arrays"]

  def _about(self, step: int) -> dict[str, Any]:
    ocp = _orbax()
    items = ocp.args.Composite(about=ocp.args.JsonRestore())
    return self._manager.restore(step, args=items)["about"]


def _orbax() -> types.ModuleType:
  """Imported with the first checkpoint, since networks in other files need none of it."""
  return importlib.import_module("orbax.checkpoint")


class OtherModelError(ValueError):
  """A checkpoint's arrays are not those of the model that asks for them."""


def write_json(path: pathlib.Path, value: Any) -> None:
  """Atomically: a reader sees the old file or the new one."""
  write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
  """Atomically."""
  part = path.with_name(path.name + ".part")
  part.write_text(text)
  part.replace(path)


def first_line(error: Exception) -> str:
  """What an error of another library says, at a length for people."""
  return (str(error) or type(error).__name__).splitlines()[0][:200]


def _shapes_by_name(tree: Tree) -> dict[str, tuple]:
  name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
  return {name(path): tuple(leaf.shape) for path, leaf in jax.tree.leaves_with_path(tree)}
