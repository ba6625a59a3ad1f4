"""What a working directory holds, and whether a run may go on in it.

config.json    the resolved config       metrics.jsonl   every logged and evaluated value
checkpoints/   the newest, to resume     tensorboard/    the same for TensorBoard, and panels
best/          the best by mIoU          pictures/       panels of validation images
result.json    best and last scores
"""

import json
import logging
import pathlib

import jax
from ml_collections import ConfigDict

from semiseg_jax.runtime import processes
from semiseg_jax.runtime.checkpoints import write_json

_FREE = ("training", "evaluation", "inference")  # sections that may change when a run goes on


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Writes config.json, or compares with the one there.

  Raises ValueError if the run there is another one: its data, model, method, optimizer or seed
  differ. Changes of training, evaluation and inference are taken over with a warning. Also raises
  it on a host that does not see what process 0 has written.
  """
  if "://" in str(workdir) or str(workdir).startswith("gs:/"):
    raise ValueError(f"--workdir={workdir} must be a directory: mount the bucket (docs/scaling.md)")
  path = workdir / "config.json"
  resolved = json.loads(config.to_json_best_effort())
  if path.exists():
    changed = processes.differences(json.loads(path.read_text()), resolved, "there", "now")
    fixed = [line for line in changed if not line.startswith(_FREE)]
    if fixed:
      raise ValueError(
        f"{workdir} holds a run with another config: {'; '.join(fixed)}. "
        "Use another --workdir, or the same values to go on"
      )
    if changed:
      logging.warning("going on with a changed config: %s", "; ".join(changed))
  processes.barrier("compared")
  if jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(path, resolved)
  processes.barrier("claimed")
  if not path.exists():
    raise ValueError(
      f"process {jax.process_index()} doesn't see {path}, which process 0 has written: --workdir "
      "must be on a file system that all hosts share"
    )
