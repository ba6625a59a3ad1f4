"""A run as its working directory tells of it: finished, going on, stopped, or in rounds."""

import glob
import os
import pathlib
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from semiseg_jax.files import read_json
from semiseg_jax.paths import local_path, printable
from semiseg_jax.runtime.history import METRICS, History, Row, number, read_history, series
from semiseg_jax.runtime.report import duration

SCORE = "miou_present"
_STAGE = re.compile(r"round_(\d+)([ab]?)")


class PastRun(NamedTuple):
  """config: flat, "method.name" and so on. history: of a run in rounds its stages', one behind the
  other. best: (score, step), NaN without any. status, progress: for people."""

  name: str
  folder: pathlib.Path
  config: dict[str, Any]
  history: History
  best: tuple[float, int]
  status: str
  progress: str

  @property
  def last_score(self) -> float:
    """NaN before the first evaluation."""
    _, values = series(self.history.evaluations, SCORE)
    return values[-1] if len(values) else np.nan

  @property
  def speed(self) -> float:
    """Images a second, the median of what was logged."""
    _, values = series(self.history.train, "images_per_second")
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else np.nan


def find_runs(texts: Iterable[str]) -> tuple[list[pathlib.Path], list[str]]:
  """(the folders of runs that these arguments mean, each once; what is wrong with the others).

  An argument is a run, a folder of runs, or a pattern of either, as of a shell.
  """
  found, wrong = {}, []
  for text in texts:
    path = local_path(text)
    paths = [path] if path.exists() else _in_order(map(pathlib.Path, glob.glob(str(path))))
    if not paths:
      wrong.append(f"{text}: there is nothing of that name")
    for path in paths:
      inside = _in_order(path.iterdir()) if path.is_dir() and not _is_run(path) else [path]
      runs = [folder for folder in inside if _is_run(folder)]
      found |= {folder.resolve(): folder for folder in runs}
      if not runs:
        wrong.append(f"{path}: neither a run, which has {METRICS}, nor a folder of runs")
  return list(found.values()), wrong


def read_run(folder: pathlib.Path, name: str) -> PastRun:
  """ValueError or OSError, with the file, for one of which nothing can be told."""
  config = read_json(folder / "config.json", "restore it to compare the run")
  stages = _stages(folder) or [folder]
  histories = [read_history(stage / METRICS) for stage in stages]
  results = list(map(_result, stages))
  firsts = _firsts(histories)
  history = _one_behind_the_other(histories, firsts)
  if not history.train and not history.evaluations:
    raise ValueError(f"{folder}: nothing is logged in {METRICS}")
  scores = zip(*series(history.evaluations, SCORE), strict=True)
  candidates = [(value, int(step)) for step, value in scores]
  candidates += [best for best in map(_best, results, firsts) if best]
  in_rounds = stages != [folder]
  status = _status(results[-1], histories[-1])
  if in_rounds:
    status = _result(folder).get("status") or (status if status == "interrupted" else None)
  age = time.time() - max((stage / METRICS).stat().st_mtime for stage in stages)
  return PastRun(
    name,
    folder,
    flatten_dict(config, sep="."),
    history,
    max((c for c in candidates if np.isfinite(c[0])), default=(np.nan, 0)),
    str(status or f"unfinished, logged {duration(age)} ago"),
    _progress(config, _last_step(history), len(stages) * in_rounds),
  )


def short_names(folders: Sequence[pathlib.Path]) -> list[str]:
  """What differs in their paths, or the last part of a single one."""
  paths = [folder.resolve() for folder in folders]
  parent = os.path.commonpath([path.parent for path in paths])
  return [printable(path.relative_to(parent)) for path in paths]


def _in_order(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
  """By name, numbers in it by size: run_9 before run_10."""
  parts = lambda path: re.split("([0-9]+)", str(path))
  return sorted(paths, key=lambda path: [int(x) if x.isdecimal() else x for x in parts(path)])


def _is_run(folder: pathlib.Path) -> bool:
  return any((folder / name).is_file() for name in (METRICS, "config.json"))


def _stages(folder: pathlib.Path) -> list[pathlib.Path]:
  """Those of a run in rounds that have logged something, in their order."""
  found = [
    (match, path) for path in folder.glob("round_*") if (match := _STAGE.fullmatch(path.name))
  ]
  found.sort(key=lambda pair: (int(pair[0][1]), pair[0][2]))
  return [path for _, path in found if (path / METRICS).exists()]


def _result(folder: pathlib.Path) -> dict[str, Any]:
  """What result.json holds; {} where there is none that can be read."""
  try:
    return read_json(folder / "result.json", "")
  except (ValueError, OSError):
    return {}


def _status(result: dict[str, Any], history: History) -> str | None:
  """What the result says, unless the run has gone on since."""
  return None if number(result.get("step")) < _last_step(history) else result.get("status")


def _best(result: dict[str, Any], first: int) -> tuple[float, int] | None:
  """Of a result of which the mIoU is the score: re-estimated statistics may have raised it."""
  best = result.get("best")
  if result.get("monitor") != SCORE or not isinstance(best, dict):
    return None
  score, step = number(best.get("score")), number(best.get("step"))
  return (score, first + int(step)) if np.isfinite([score, step]).all() else None


def _last_step(history: History) -> int:
  return max((rows[-1]["step"] for rows in history[:2] if rows), default=0)


def _firsts(histories: Sequence[History]) -> list[int]:
  """The steps that were done before each."""
  return [0, *np.cumsum([_last_step(history) for history in histories])[:-1].tolist()]


def _one_behind_the_other(histories: Sequence[History], firsts: Sequence[int]) -> History:
  def moved(rows: list[Row], first: int) -> list[Row]:
    return [{**row, "step": row["step"] + first} for row in rows]

  pairs = list(zip(histories, firsts, strict=True))
  return History(
    [row for history, first in pairs for row in moved(history.train, first)],
    [row for history, first in pairs for row in moved(history.evaluations, first)],
    [line for history in histories for line in history.foreign],
  )


def _progress(config: dict[str, Any], step: int, stages: int) -> str:
  section = config.get("training")
  total = number(section.get("steps")) if isinstance(section, dict) else np.nan
  if stages:
    return f"{step:,}, {stages} stage{'s' * (stages > 1)}"
  return f"{step:,}" if np.isnan(total) else f"{step:,}/{total:,.0f}"
