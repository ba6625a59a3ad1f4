"""metrics.jsonl, what a run has logged, a JSON object a line: how it is read again."""

import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from semiseg_jax.files import write_text

METRICS = "metrics.jsonl"
Row = dict[str, Any]
_STEPS = 2**53  # more are no float


class History(NamedTuple):
  """The rows of training and of evaluation in the order of their steps; foreign: the numbers of
  the lines that are none."""

  train: list[Row]
  evaluations: list[Row]
  foreign: list[int]


def read_history(path: pathlib.Path) -> History:
  """Of two rows of one kind and step the later line counts. OSError if the file can't be read."""
  rows: dict[str, dict[int, Row]] = {"train": {}, "eval": {}}
  lines, foreign = _lines(path), []
  for i, line in enumerate(lines, 1):
    if row := parse(line):
      rows[row["kind"]][row["step"]] = row
    elif i < len(lines):  # the last one is empty, or just being written
      foreign.append(i)
  of_kind = ([by_step[step] for step in sorted(by_step)] for by_step in rows.values())
  return History(*of_kind, foreign)


def parse(line: str) -> Row | None:
  """A line's row; None for what this package has not written, or not to its end."""
  try:
    row = json.loads(line)
  except (ValueError, RecursionError):
    return None
  if not isinstance(row, dict) or row.get("kind") not in ("train", "eval"):
    return None
  step = row.get("step")
  return row if type(step) is int and 0 <= step < _STEPS else None


def drop_later_lines(path: pathlib.Path, step: int) -> None:
  """Takes the rows of steps after `step`, and what is no row, out of the file, if there is one."""
  if path.exists():
    rows = ((line, parse(line)) for line in _lines(path))
    write_text(path, "".join(f"{line}\n" for line, row in rows if row and row["step"] <= step))


def series(rows: Iterable[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
  """(steps [n], values [n]) of the rows that have this key; NaN where it holds no number."""
  found = [(row["step"], number(row[name])) for row in rows if name in row]
  steps, values = np.asarray(found, float).reshape(-1, 2).T
  return steps, values


def series_of_classes(
  rows: Iterable[Row], name: str, classes: Iterable[str]
) -> tuple[np.ndarray, np.ndarray]:
  """(steps [n], values [n,K]) of the rows that have a value for each class under this key: a list,
  or a dict by class name."""
  names, steps, values = list(classes), [], []
  for row in rows:
    of_classes = row.get(name)
    if isinstance(of_classes, dict):
      of_classes = [of_classes.get(key) for key in names]
    if isinstance(of_classes, list) and len(of_classes) == len(names):
      steps.append(row["step"])
      values.append([number(value) for value in of_classes])
  return np.asarray(steps, float), np.asarray(values, float).reshape(-1, len(names))


def number(value: Any) -> float:
  """As a float; NaN for what is no finite number, such as the None that stands for NaN in JSON."""
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if not is_number or abs(value) > 1e300:  # JSON has whole numbers that no float holds
    return math.nan
  return float(value)


def _lines(path: pathlib.Path) -> list[str]:
  return path.read_bytes().decode(errors="replace").split("\n")
