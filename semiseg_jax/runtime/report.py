"""What people see of a run: console, metrics.jsonl, TensorBoard, pictures, result.json."""

import itertools
import json
import math
import pathlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import rich.box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress
from rich.table import Table

from semiseg_jax.buckets import is_bucket, named
from semiseg_jax.evaluation.metrics import Scores
from semiseg_jax.files import write_png
from semiseg_jax.input.sources import DatasetInfo
from semiseg_jax.paths import user_path
from semiseg_jax.runtime.curves import CURVES, draw_run
from semiseg_jax.runtime.errors import in_one_line
from semiseg_jax.runtime.events import Events
from semiseg_jax.runtime.growing import GrowingFile
from semiseg_jax.runtime.history import METRICS, drop_later_lines

_CLASSES_PER_COLUMN = 10
_COLUMNS = ("step {task.completed}/{task.total}", BarColumn(), "{task.percentage:.0f}%",
            "{task.fields[loss]}", "{task.fields[speed]}", "{task.fields[eta]} left")  # fmt: skip


class Reporter:
  """Writes down how a run goes on; with enabled=False (all hosts but one) it does nothing.

  A run that resumes at resume_step drops what was reported of later steps, so that its files read
  like those of an unbroken run. What can't be written is said once, and the run goes on. Into a
  bucket goes what is appended to at every evaluation, `flush` and `close`.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    total_steps: int,
    *,
    resume_step: int = 0,
    enabled: bool = True,
    console: Console | None = None,
  ):
    self._enabled = enabled
    if not enabled:
      return
    workdir = user_path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    self._pictures = workdir / "pictures"
    self._workdir, self._metrics = workdir, GrowingFile(workdir / METRICS)
    self._folder = workdir / "tensorboard"
    self._lost: set[pathlib.Path] = set()  # what could not be written
    self._events = Events(self._folder, resume_step + 1 if resume_step else None)
    self._of_classes: list[str] = []  # what was logged of each class
    self._total = total_steps
    self._console = console or Console(highlight=False)
    self._attempt(self._metrics.path, drop_later_lines, self._metrics.local, resume_step)
    self._pace = _Pace(resume_step)
    self._progress = None
    if self._console.is_terminal:
      fields = {"eta": "-", "speed": "-", "loss": "-"}
      self._progress = Progress(*_COLUMNS, console=self._console)
      self._task = self._progress.add_task("", total=total_steps, completed=resume_step, **fields)
      self._progress.start()

  def train(self, step: int, metrics: Mapping[str, float | list[float]]) -> None:
    """Means over the steps since the last call; loss and images_per_second are shown.

    Lists, of a value for each class, are written to metrics.jsonl and drawn by `curves`.
    """
    if not self._enabled:
      return
    self._write(step, "train", metrics)
    self._of_classes = [name for name, value in metrics.items() if isinstance(value, list)]
    metrics = {name: metrics[name] for name in metrics if name not in self._of_classes}
    self._scalars(step, {f"train/{name}": value for name, value in metrics.items()})
    eta = duration(self._pace.remaining(step, self._total))
    speed = f"{metrics.get('images_per_second', math.nan):.1f} images/s"
    loss = f"loss {metrics.get('loss', math.nan):.4f}"
    if self._progress:
      self._progress.update(self._task, completed=step, eta=eta, speed=speed, loss=loss)
    else:
      width = len(str(self._total))
      self._print(f"step {step:{width}d}/{self._total}  {loss}  {speed}  {eta} left")

  def evaluation(
    self,
    step: int,
    scores: Scores,
    class_names: Sequence[str],
    seconds: float,
    loss: float | None = None,
    others: Mapping[str, float] | None = None,
  ) -> None:
    """Scores of the validation set, shown as a table.

    loss: its mean cross-entropy. others: what else there is to log beside them, by name.
    """
    if not self._enabled:
      return
    values = scores.as_dict(class_names)
    if loss is not None:
      values["loss"] = loss
    values |= others or {}
    self._write(step, "eval", {**values, "seconds": seconds})
    iou = values.pop("iou")
    self._scalars(step, {f"eval/{name}": value for name, value in values.items()})
    self._scalars(step, {f"eval_iou/{name}": value for name, value in iou.items()})
    self.flush()
    print_scores(step, scores, class_names, seconds, self._console)
    for name, value in (others or {}).items():
      self.note(f"{name} {100 * value:.2f}")

  def panels(self, step: int, panels: Sequence[np.ndarray], names: Sequence[str]) -> None:
    """Pictures uint8 [H,W,3] to pictures/step_XXXXXXXX/NAME.png and to TensorBoard."""
    if not self._enabled or not len(panels):
      return
    folder = self._pictures / f"step_{step:08d}"
    for picture, name in zip(panels, names, strict=True):
      name = re.sub(r"[^\w.-]+", "_", name)
      self._attempt(self._pictures, write_png, folder / f"{name}.png", picture)
      self._attempt(self._folder, self._events.image, f"validation/{name}", picture, step)

  def curves(self, info: DatasetInfo) -> None:
    """Draws what was logged: curves.png, and of lists for each class pictures/NAME.png."""
    if not self._enabled:
      return
    self._attempt(self._workdir / CURVES, draw_run, self._workdir, info, self._of_classes)

  def note(self, text: str) -> None:
    """A message to the person who watches."""
    if self._enabled:
      self._print(text)

  def flush(self) -> None:
    """What was reported is where it belongs, so that a run killed behind this has it."""
    if self._enabled:
      self._attempt(self._metrics.path, self._metrics.flush, again=True)
      self._attempt(self._folder, self._events.flush, again=True)

  def close(self) -> None:
    if not self._enabled:
      return
    if self._progress:
      self._progress.stop()
    self._attempt(self._metrics.path, self._metrics.close)
    self._attempt(self._folder, self._events.close)

  def _write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
    row = jsonable({"step": step, "kind": kind, **values})
    self._attempt(self._metrics.path, self._metrics.append, f"{json.dumps(row)}\n")

  def _scalars(self, step: int, values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
      if value is not None and math.isfinite(value):
        self._attempt(self._folder, self._events.scalar, name, float(value), step)

  def _attempt(self, path: pathlib.Path, write: Callable, *args: Any, again: bool = False) -> None:
    """Leaves the run alone if a part of the report, at the path, can't be written.

    again: what doesn't get into a bucket now may do so the next time, since it is kept until then.
    """
    if path in self._lost:
      return
    try:
      with named(path):
        write(*args)
    except Exception as error:  # whatever drawing, too, may raise
      if again and is_bucket(path):
        self.note(f"{path} can't be written now, training goes on: {in_one_line(error)}")
        return
      self._lost.add(path)
      why = in_one_line(error) if isinstance(error, OSError) else repr(error)[:200]
      self.note(f"{path} is not written any more, training goes on: {why}")

  def _print(self, text: str) -> None:
    self._console.print(text, soft_wrap=True, markup=False)


class _Pace:
  """How long it will take. The first report, which holds the compilation, counts only itself."""

  def __init__(self, step: int):
    self._step = step
    self._start = time.monotonic()
    self._reports = 0

  def remaining(self, step: int, total: int) -> float:
    """Seconds to the end at the pace so far, evaluations included."""
    now = time.monotonic()
    seconds = (now - self._start) / max(step - self._step, 1) * (total - step)
    self._reports += 1
    if self._reports == 1:
      self._start, self._step = now, step
    return seconds


def print_scores(
  step: int,
  scores: Scores,
  class_names: Sequence[str],
  seconds: float,
  console: Console | None = None,
) -> None:
  """A table of every class's IoU in percent, and the means below it."""
  console = console or Console(highlight=False)
  columns = min(3, -(-len(class_names) // _CLASSES_PER_COLUMN))
  rows = -(-len(class_names) // columns)
  table = empty_table(console)
  for _ in range(columns):
    table.add_column("class")
    table.add_column("IoU", justify="right")
  cells = [(escape(n), percent(iou)) for n, iou in zip(class_names, scores.iou, strict=True)]
  blocks = (cells[i : i + rows] for i in range(0, len(cells), rows))
  for row in itertools.zip_longest(*blocks, fillvalue=("", "")):
    table.add_row(*itertools.chain(*row))
  console.print(f"step {step}, IoU in percent")
  console.print(table)
  absent = int(np.isnan(scores.iou).sum())
  mean = f"mIoU {percent(scores.miou_present)}"
  if absent:
    mean += f" (of {len(scores.iou) - absent} classes; {absent} in neither label nor prediction)"
  accuracy = f"accuracy {percent(scores.accuracy)}"
  console.print(f"{mean}  {accuracy}  in {duration(seconds)}", soft_wrap=True)


def empty_table(console: Console) -> Table:
  """A table that reads well in a terminal, and in a file."""
  return Table(box=rich.box.SIMPLE_HEAD if console.is_terminal else rich.box.ASCII2)


def jsonable(value: Any) -> Any:
  """The same with numpy's numbers as Python's and what JSON has no number for (NaN) as None."""
  if isinstance(value, Mapping):
    return {str(key): jsonable(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [jsonable(item) for item in value]
  if hasattr(value, "tolist"):
    return jsonable(value.tolist())
  return None if isinstance(value, float) and not math.isfinite(value) else value


def duration(seconds: float) -> str:
  """0:05, 12:34 or 1:02:03."""
  minutes, seconds = divmod(round(max(seconds, 0)), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def percent(share: float) -> str:
  return "-" if math.isnan(share) else f"{100 * share:.2f}"
