"""What a working directory holds, and whether a run may go on in it.

config.json    the resolved config       metrics.jsonl   every logged and evaluated value
data.json      what it learns from       tensorboard/    the same for TensorBoard, and panels
checkpoints/   the newest, to resume     pictures/       panels of validation images
best/          the best by mIoU          result.json     best and last scores
curves.png     all of it over the steps  lock            while a run is there
"""

import json
import logging
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from semiseg_jax.buckets import is_bucket
from semiseg_jax.files import read_json, write_json
from semiseg_jax.runtime import processes

_FREE = ("training", "evaluation", "inference")  # sections that may change when a run goes on
# What may too, since the result is the same, or data.json compares what comes of it.
_SAME_RESULT = re.compile(
  r"data\.(data_dir|root|threads|workers|buffer|class_names|ignore_index|palette)|model\.remat"
  r"|training\.compile_cache"
)
_PATHS = ("model.init_from", "data.pseudo_labels", "rounds.start")
_SHOWN = 5  # differences in a message
_REMEDY = "restore it, or move it away to go on as the command says"


def compare(workdir: pathlib.Path, config: ConfigDict, data: Mapping[str, Any]) -> list[str]:
  """What differs of config from that of the run in workdir, told as a warning; [] if none is there.

  data: of `input.identity`. Raises ValueError if the run there is another one: its data, model,
  method, optimizer or seed differ. Sections and keys that may change do, and so may folders that
  were moved: of paths the last part has to be the same. Also for a damaged file.
  """
  known, seen = workdir / "config.json", workdir / "data.json"
  if not known.exists():
    return []
  changed = _changes(read_json(known, _REMEDY), _resolved(config))
  fixed = [line for line in changed if not _may_change(line.partition(":")[0])]
  if seen.exists():
    fixed += [f"of its data {line}" for line in _changes(read_json(seen, _REMEDY), data)]
  if fixed:
    more = f" and {len(fixed) - _SHOWN} more" if len(fixed) > _SHOWN else ""
    raise ValueError(
      f"{workdir} holds a run with another config: {'; '.join(fixed[:_SHOWN])}{more}. "
      "Use another --workdir, or the same values to go on"
    )
  if changed and jax.process_index() == 0:
    logging.warning("going on with a changed config: %s", "; ".join(changed))
  return changed


def matters(changed: str) -> bool:
  """Whether what a line of `compare` tells of may change the result."""
  return not _SAME_RESULT.fullmatch(changed.partition(":")[0])


def record(workdir: pathlib.Path, config: ConfigDict, data: Mapping[str, Any]) -> None:
  """Writes config.json and data.json, once all processes have compared theirs.

  Raises ValueError on a host that does not see what process 0 has written.
  """
  processes.barrier("compared")
  path = workdir / "config.json"
  if jax.process_index() == 0:
    write_json(path, _resolved(config))
    write_json(workdir / "data.json", data)
  processes.barrier("claimed")
  if not path.exists():
    raise ValueError(
      f"process {jax.process_index()} doesn't see {path}, which process 0 has written: --workdir "
      "must be in a bucket or on a file system that all hosts share"
    )


def read_result(workdir: pathlib.Path) -> dict[str, Any]:
  """What result.json of a training run says; {} without a whole one, since it can be made anew."""
  try:
    result = read_json(workdir / "result.json", "")
    result["status"], int(result["step"]), result["best"]["step"], result["monitor"]
  except (ValueError, OSError, KeyError, TypeError):
    return {}
  return result


def kept(workdir: pathlib.Path) -> str:
  """Which checkpoint a run that ends now goes on from, for people."""
  if is_bucket(workdir):  # no time for questions that may go unanswered
    return f"the checkpoints in {workdir} are kept: the same command goes on from there"
  saved = [*workdir.glob("checkpoints/*"), *workdir.glob("round_*/checkpoints/*")]
  whole = [path for path in saved if path.name.isdecimal()]
  if not whole:
    return "no checkpoint was saved yet"
  newest = max(whole, key=lambda path: (path.parent, int(path.name)))
  return f"the checkpoint {newest} is kept: the same command goes on from there"


def _resolved(config: ConfigDict) -> dict[str, Any]:
  return json.loads(config.to_json_best_effort())


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """A line for every key that has another value; where a path was moved it counts as the same."""
  old, new = (flatten_dict(values, sep=".") for values in (old, new))
  for key, value in new.items():
    there = old.get(key)
    if isinstance(value, str) and isinstance(there, str) and _is_moved(key, there, value):
      new[key] = there
  return processes.differences(old, new, "there", "now")


def _is_moved(key: str, there: str, now: str) -> bool:
  same_name = pathlib.Path(there).name == pathlib.Path(now).name
  return same_name and (key in _PATHS or there.endswith(".txt"))  # a list of ids


def _may_change(key: str) -> bool:
  return key.startswith(_FREE) or bool(_SAME_RESULT.fullmatch(key))
