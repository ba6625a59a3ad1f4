"""What runs have in common and where they differ: groups over seeds, configs, classes."""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from semiseg_jax.runtime.history import number
from semiseg_jax.runtime.past_run import SCORE, PastRun
from semiseg_jax.runtime.report import empty_table, percent

_SPLIT = re.compile(r"((?:rest of )?(?!unimatch/)\w*/\d+_(?:seed)?)\d+(_left|_right)?")
_MOST_CLASSES, _ENDS = 24, 10  # that are all listed; of more, at either end of the order
_LONGEST = 48  # letters of a value


class Group(NamedTuple):
  """Runs whose configs differ in the seed alone, or in that of the labelled split."""

  name: str
  runs: tuple[PastRun, ...]


def grouped(runs: Sequence[PastRun]) -> list[Group]:
  """In the order of their first runs; one of a single run has its name."""
  members: dict[str, list[PastRun]] = {}
  for run in runs:
    members.setdefault(repr(_without_seeds(run.config)), []).append(run)
  names = [run.name for run in runs]
  return [Group(_common_name(own, names), tuple(own)) for own in members.values()]


def mean_and_spread(values: Iterable[float]) -> tuple[float, float, int]:
  """(mean, standard deviation of the sample, count) of the numbers among them; NaN without."""
  known = [value for value in values if math.isfinite(value)]
  spread = float(np.std(known, ddof=1)) if len(known) > 1 else math.nan
  return float(np.mean(known)) if known else math.nan, spread, len(known)


def scores_table(groups: Sequence[Group], console: Console) -> Table:
  """A line for each run, and below the runs of a group their mean and standard deviation."""
  table = empty_table(console)
  table.add_column("run", overflow="fold")
  for name in ("status", "step", "last mIoU", "best mIoU", "at step", "images/s"):
    table.add_column(name, justify="left" if name == "status" else "right")
  for group in groups:
    for run in group.runs:
      score, step = run.best
      scores = (percent(run.last_score), percent(score), "-" if math.isnan(score) else f"{step:,}")
      speed = "-" if math.isnan(run.speed) else f"{run.speed:.1f}"
      table.add_row(escape(run.name), escape(run.status), run.progress, *scores, speed)
    if len(group.runs) > 1:
      of = ([run.last_score for run in group.runs], [run.best[0] for run in group.runs])
      *scores, count = [_mean_cell(values) for values in of] + [mean_and_spread(of[1])[2]]
      title = f"{escape(group.name)}: mean of {count}, over seeds"
      table.add_row(title, "", "", *scores, "", "", style="bold")
    table.add_section()
  return table


def config_table(groups: Sequence[Group], console: Console) -> Table:
  """A line for each value that a key of the config has in some runs and not in others.

  What comes with a choice, such as the keys of another method, isn't listed beside the choice.
  """
  table = empty_table(console)
  for name in ("what differs", "value", "of"):
    table.add_column(name, overflow="fold")
  runs = [run for group in groups for run in group.runs]
  for key in sorted(set().union(*(run.config for run in runs))):
    having: dict[str, list[PastRun]] = {}
    for run in runs:
      having.setdefault(_text(run.config.get(key)), []).append(run)
    if len(having) > 1 and not _comes_with_a_choice(key, runs):
      for i, (value, own) in enumerate(having.items()):
        names = ", ".join(_names(own, groups))
        table.add_row("" if i else escape(key), escape(value), escape(names))
  return table


def class_differences(groups: Sequence[Group]) -> list[tuple[str, float, float]]:
  """Of two groups (class, IoU in the first, IoU in the second), the largest gain of the second
  first, for the classes that both have; at the best evaluation of each run, its mean over seeds."""
  first, second = map(_class_scores, groups)
  rows = [(name, first[name], second[name]) for name in first if name in second]
  return sorted(rows, key=lambda row: row[1] - row[2])


def ends_of(rows: Sequence[Any]) -> list[Any]:
  """Of many rows those at the beginning and at the end."""
  return [*rows] if len(rows) <= _MOST_CLASSES else [*rows[:_ENDS], *rows[-_ENDS:]]


def class_table(groups: Sequence[Group], console: Console) -> Table:
  """The IoU of every class in two groups; of many classes, of those that differ most."""
  table = empty_table(console)
  table.add_column("IoU at the best mIoU")
  for name in (*(group.name for group in groups), "difference"):
    table.add_column(escape(name), justify="right")
  for name, first, second in ends_of(class_differences(groups)):
    table.add_row(escape(name), percent(first), percent(second), f"{100 * (second - first):+.2f}")
  return table


def _comes_with_a_choice(key: str, runs: Sequence[PastRun]) -> bool:
  """Whether only runs with another `name` in a section above have this key, all with one value."""
  values = {_text(run.config[key]) for run in runs if key in run.config}
  if len(values) > 1 or all(key in run.config for run in runs):
    return False
  parts = key.split(".")
  names = [".".join([*parts[:i], "name"]) for i in range(1, len(parts))]
  return any(len({_text(run.config.get(name)) for run in runs}) > 1 for name in names)


def _without_seeds(config: dict[str, Any]) -> dict[str, Any]:
  kept = {key: config[key] for key in sorted(config) if key.rpartition(".")[2] != "seed"}
  for key, value in kept.items():
    if key.endswith("labeled") and isinstance(value, str) and (match := _SPLIT.fullmatch(value)):
      kept[key] = f"{match[1]}*{match[2] or ''}"
  return kept


def _common_name(runs: Sequence[PastRun], names: Sequence[str]) -> str:
  """What the names share, with a star where they differ, unless that says nothing of them."""
  own = [run.name for run in runs]
  if len(own) == 1:
    return own[0]
  start = _shared_start(own)
  end = _shared_start([name[len(start) :][::-1] for name in own])[::-1]
  fitting = [name for name in names if name.startswith(start) and name.endswith(end)]
  if len(start + end) < 2 or len(fitting) > len(own):
    return f"{own[0]} and {len(own) - 1} more"
  return f"{start}*{end}"


def _shared_start(texts: Sequence[str]) -> str:
  alike = itertools.takewhile(lambda letters: len({*letters}) == 1, zip(*texts, strict=False))
  return "".join(letters[0] for letters in alike)


def _names(runs: Sequence[PastRun], groups: Sequence[Group]) -> list[str]:
  """Of the runs, by group where all of one are among them."""
  names = []
  for group in groups:
    own = [run.name for run in group.runs if run in runs]
    names += [group.name] if len(own) == len(group.runs) else own
  return names


def _class_scores(group: Group) -> dict[str, float]:
  """The mean over the runs that know of each class."""
  values: dict[str, list[float]] = {}
  for run in group.runs:
    rows = [row for row in run.history.evaluations if np.isfinite(number(row.get(SCORE)))]
    of_classes = max(rows, key=lambda row: row[SCORE]).get("iou") if rows else None
    for name, value in of_classes.items() if isinstance(of_classes, dict) else ():
      values.setdefault(name, []).append(number(value))
  means = {name: mean_and_spread(own)[0] for name, own in values.items()}
  return {name: mean for name, mean in means.items() if math.isfinite(mean)}


def _mean_cell(values: Iterable[float]) -> str:
  mean, spread, _ = mean_and_spread(values)
  return percent(mean) if math.isnan(spread) else f"{percent(mean)} ± {percent(spread)}"


def _text(value: Any) -> str:
  text = "-" if value is None else str(value)
  return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
