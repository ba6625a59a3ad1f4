"""What a working directory holds, and whether a run may go on in it.

config.json    the resolved config       metrics.jsonl   every logged and evaluated value
checkpoints/   the newest, to resume     tensorboard/    the same for TensorBoard, and panels
best/          the best by mIoU          pictures/       panels of validation images
result.json    best and last scores
"""

import json
import logging
import pathlib

from ml_collections import ConfigDict

from semiseg_jax.training.checkpoints import write_json

_FREE = ("training", "evaluation")  # sections that may change when a run goes on


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Writes config.json, or compares with the one there.

  Raises ValueError if the run there is another one: its data, model, method, optimizer or seed
  differ. Changes of training and evaluation are taken over with a warning.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / "config.json"
  resolved = json.loads(config.to_json_best_effort())
  if path.exists():
    changed = _differences(json.loads(path.read_text()), resolved)
    fixed = [line for line in changed if not line.startswith(_FREE)]
    if fixed:
      raise ValueError(
        f"{workdir} holds a run with another config: {'; '.join(fixed)}. "
        "Use another --workdir, or the same values to go on"
      )
    if changed:
      logging.warning("going on with a changed config: %s", "; ".join(changed))
  write_json(path, resolved)


def _differences(old: dict, new: dict, prefix: str = "") -> list[str]:
  lines = []
  for key in sorted(old.keys() | new.keys()):
    before, after = old.get(key), new.get(key)
    if isinstance(before, dict) and isinstance(after, dict):
      lines += _differences(before, after, f"{prefix}{key}.")
    elif before != after:
      lines.append(f"{prefix}{key}: {before!r} there, {after!r} now")
  return lines
