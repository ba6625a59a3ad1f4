"""What people see of a survey: the RankDice fork's table, one of every class, and files of them."""

import csv
import io
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.markup import escape

from semiseg_jax.evaluation.class_scores import ClassScores
from semiseg_jax.evaluation.confusion_picture import confusion_picture
from semiseg_jax.evaluation.image_scores import mean_of_known
from semiseg_jax.evaluation.summary import Summary
from semiseg_jax.evaluation.survey import Survey
from semiseg_jax.files import write_json, write_png, write_text
from semiseg_jax.input.sources import DatasetInfo
from semiseg_jax.runtime.report import empty_table, jsonable, percent

_COLUMNS = {  # in the CSV, and over the printed table
  "image_iou": "image\nIoU",
  "image_dice": "image\nDice",
  "iou": "IoU",
  "precision": "prec.",
  "recall": "recall",
  "f1": "F1",
  "boundary_iou": "bound.\nIoU",
}


class Told(NamedTuple):
  """A survey, its summary, and what names them: how masks were decided, and of what set.

  ids: of all images of the set.
  """

  survey: Survey
  summary: Summary
  decided: dict[str, Any]
  split: str
  info: DatasetInfo
  ids: Sequence[str]


def print_survey(told: Told, heading: str, loss_name: str, console: Console | None = None) -> None:
  """The original's table, then every class in percent.

  loss_name: what the original's table calls the survey's loss.
  """
  console = console or Console(highlight=False)
  rounded = lambda values: {i: round(float(x), 3) for i, x in enumerate(values)}
  means, loss = told.summary.means, told.survey.loss
  lines = {
    loss_name: round(loss, 5),
    "Pixel_Accuracy": round(means.accuracy, 3),
    "Mean_IoU": round(means.iou, 3),
    "Mean_Dice": round(means.dice, 3),
    "Class_IoU": rounded(means.class_iou),
    "Class_Dice": rounded(means.class_dice),
  }
  text = "\n".join([heading, *(f"  {key:15s}: {value}" for key, value in lines.items())])
  console.print(text, soft_wrap=True, markup=False)
  table = empty_table(console)
  table.add_column("class")
  for name in _COLUMNS.values():
    table.add_column(name, justify="right")
  rows = list(_rows(told))
  for name, *values in rows:
    table.add_row(escape(name), *map(percent, values), end_section=name == rows[-2][0])
  console.print(table)


def write_survey(workdir: pathlib.Path, stem: str, told: Told, about: dict[str, Any]) -> None:
  """workdir/STEM.json, .csv (every class), _images.csv (every image), _confusion.csv and .png.

  about: what the JSON file holds beside the survey.
  """
  survey, names = told.survey, told.info.class_names
  write_json(workdir / f"{stem}.json", jsonable({**about, **as_dict(told)}))
  write_text(workdir / f"{stem}.csv", _csv(["class", *_COLUMNS], _rows(told)))
  columns = ["id", "pixel_accuracy", "mean_iou", "mean_dice"]
  write_text(workdir / f"{stem}_images.csv", _csv(columns, _image_rows(told)))
  columns = [*names, "no mask"]
  rows = ([name, *row] for name, row in zip(names, survey.confusion.tolist(), strict=True))
  write_text(workdir / f"{stem}_confusion.csv", _csv(["truth", *columns], rows))
  truth = survey.counts.truth.astype(np.int64).sum(0)
  picture = confusion_picture(survey.confusion, truth, told.info.palette, names)
  write_png(workdir / f"{stem}_confusion.png", picture)


def as_dict(told: Told) -> dict[str, Any]:
  """The survey for JSON, its classes by name but for `iou`; NaN is left to `jsonable`."""
  survey, summary, names = told.survey, told.summary, told.info.class_names
  by_name = lambda values: dict(zip(names, values.tolist(), strict=True))
  means = summary.means
  fields = {name: by_name(values) for name, values in summary.of_pixels._asdict().items()}
  return {
    "loss": survey.loss,
    **survey.scores.as_dict(),
    "split": told.split,
    "images": len(survey.rows),
    "decided": told.decided,
    "classes_of_interest": [names[i] for i in summary.classes],
    "of_images": {
      "Pixel_Accuracy": means.accuracy,
      "Mean_IoU": means.iou,
      "Mean_Dice": means.dice,
      "Class_IoU": by_name(means.class_iou),
      "Class_Dice": by_name(means.class_dice),
    },
    "of_pixels": {"mean": summary.mean, **fields},
  }


def _rows(told: Told) -> Iterable[list]:
  """A name and a number for each column, of every class, and of the mean over those of interest."""
  means, of_pixels = told.summary.means, told.summary.of_pixels
  columns = (means.class_iou, means.class_dice, *of_pixels)
  for name, *values in zip(told.info.class_names, *columns, strict=True):
    yield [name, *map(float, values)]
  mean = told.summary.mean
  yield ["mean", means.iou, means.dice, *(mean[name] for name in ClassScores._fields)]


def _image_rows(told: Told) -> Iterable[list]:
  """The scores of every image, in the order of the set."""
  scores, classes = told.summary.per_image, told.summary.classes
  of_interest = (mean_of_known(x[:, classes], 1) for x in (scores.iou, scores.dice))
  columns = (x.tolist() for x in (scores.accuracy, *of_interest))
  for row, *values in sorted(zip(told.survey.rows.tolist(), *columns, strict=True)):
    yield [told.ids[row], *values]


def _csv(header: Sequence[str], rows: Iterable[Sequence]) -> str:
  """NaN is an empty field."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator="\n")
  writer.writerow(header)
  is_nan = lambda value: isinstance(value, float) and np.isnan(value)
  for row in rows:
    writer.writerow(["" if is_nan(x) else round(x, 6) if isinstance(x, float) else x for x in row])
  return file.getvalue()
