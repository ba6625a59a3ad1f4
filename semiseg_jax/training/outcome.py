"""What result.json says of a run: whether it is done, and what it came to."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict


def is_done(result: Mapping[str, Any], config: ConfigDict, changed: Sequence[str]) -> bool:
  """Whether a run with that result has nothing left to do, now that so much of its config changed.

  One that ended early goes on if anything did; any other if more steps are wanted than it has made.
  """
  if result.get("status") != "finished":
    return False
  wants_refresh = config.training.refresh_batch_stats and result["best"]["step"] is not None
  if wants_refresh and "refreshed" not in result:
    return False
  return result["step"] >= config.training.steps or not changed


def already_done(result: Mapping[str, Any], workdir: pathlib.Path) -> str:
  """Of a run that `is_done`."""
  return (
    f"the run in {workdir} is done: {result['step']} steps, {best_in_words(result)}; nothing was "
    "changed there. To go on, raise config.training.steps; to begin anew, take another --workdir"
  )


def best_in_words(result: Mapping[str, Any]) -> str:
  """What result.json says of the best score, for people."""
  monitor, best = result["monitor"], result["best"]
  if best["step"] is None:
    return f"no {monitor} was a number, so that no network is the best"
  return f"best {monitor} {100 * best['score']:.2f} at step {best['step']}"
