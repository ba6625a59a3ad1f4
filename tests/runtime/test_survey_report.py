"""What a survey leaves for people."""

import csv
import io
import json

import numpy as np
from PIL import Image
from rich.console import Console

from semiseg_jax.evaluation.summary import summarize
from semiseg_jax.input.palettes import make_palette
from semiseg_jax.input.sources import DatasetInfo
from semiseg_jax.runtime.survey_report import Told, print_survey, write_survey
from tests.evaluation.test_summary import SURVEY

NAMES = ("road", "side[walk]", "sun")
INFO = DatasetInfo("streets", NAMES, make_palette(3), (10, 1))
TOLD = Told(
  SURVEY, summarize(SURVEY, [0, 1, 2], "paper", False), {"name": "threshold"}, "val", INFO, "ab"
)


def test_the_originals_lines_and_a_table():
  out = Console(file=io.StringIO(), width=80, highlight=False)
  print_survey(TOLD, "unet, ce, decided by threshold", "test_loss", out)
  text = out.file.getvalue()
  lines = text.splitlines()
  assert lines[:5] == [
    "unet, ce, decided by threshold",
    "  test_loss      : 0.5",
    "  Pixel_Accuracy : 0.8",
    "  Mean_IoU       : 0.464",
    "  Mean_Dice      : 0.633",
  ]
  assert lines[5] == "  Class_IoU      : {0: 0.429, 1: 0.5, 2: nan}"
  assert "side[walk]" in text and "bound." in text and "…" not in text
  mean = next(line for line in lines if line.startswith("| mean"))
  assert [cell.strip() for cell in mean.split("|")[2:5]] == ["46.43", "63.33", "50.00"]
  assert max(map(len, lines)) <= 80


def test_files(tmp_path):
  write_survey(tmp_path, "evaluation_test", TOLD, {"step": 3})
  found = json.loads((tmp_path / "evaluation_test.json").read_text())
  assert found["step"] == 3 and found["decided"] == {"name": "threshold"} and found["images"] == 2
  assert found["of_images"]["Class_IoU"]["sun"] is None
  assert found["of_pixels"]["iou"] == {"road": 0.5, "side[walk]": 0.5, "sun": None}
  table = list(csv.DictReader((tmp_path / "evaluation_test.csv").open()))
  assert [row["class"] for row in table] == [*NAMES, "mean"]
  assert table[0]["f1"] == "0.666667" and table[2]["iou"] == "" and table[3]["iou"] == "0.5"
  images = list(csv.DictReader((tmp_path / "evaluation_test_images.csv").open()))
  assert [row["id"] for row in images] == ["a", "b"]  # in the order of the set
  assert images[0]["mean_iou"] == "0.0" and images[1]["mean_iou"] == "0.464285"
  confusion = list(csv.reader((tmp_path / "evaluation_test_confusion.csv").open()))
  assert confusion[0] == ["truth", *NAMES, "no mask"] and confusion[1] == ["road", *"3001"]
  with Image.open(tmp_path / "evaluation_test_confusion.png") as picture:
    assert np.asarray(picture).std() > 0
  assert len(list(tmp_path.iterdir())) == 5
