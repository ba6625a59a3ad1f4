"""curves.png: what is in it, and that a run never stops for it."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from semiseg_jax.evaluation.metrics import scores
from semiseg_jax.input.sources import DatasetInfo
from semiseg_jax.runtime import curves, plots
from semiseg_jax.runtime.history import History, read_history
from semiseg_jax.runtime.report import Reporter


def info(classes):
  palette = np.random.default_rng(0).integers(0, 256, (classes, 3)).astype(np.uint8)
  return DatasetInfo("made up", tuple(f"class {i}" for i in range(classes)), palette, None)


def history(rows, classes, evaluations=5):
  """A run's, with gaps."""
  train = [
    {"step": 5 * i, "kind": "train", "loss": 1 / i, "reco_loss": None if i < 5 else 0.5,
     "learning_rate": 0.01, "gradient_norm": 1.0}
    for i in range(1, rows + 1)
  ]  # fmt: skip
  iou = {f"class {k}": k / classes for k in range(classes)}
  values = {"iou": {**iou, "class 0": None}, "loss": 0.5, "seconds": 1.0}
  scored = [
    {"step": 100 * i, "kind": "eval", "miou_present": 0.1 * i, **values}
    for i in range(1, evaluations + 1)
  ]
  return History(train, scored, [])


def panels(figure):
  """Names of the lines in each panel, by its title."""
  return {axes.get_title("left"): [line.get_label() for line in axes.lines] for axes in figure.axes}


def reporter_of(tmp_path, out=None):
  return Reporter(tmp_path, 40, console=Console(file=out or io.StringIO(), width=100))


@pytest.mark.parametrize(("rows", "classes"), [(10, 2), (1000, 19)])
def test_what_is_drawn(rows, classes):
  found = panels(curves.run_figure(history(rows, classes), info(classes), "run"))
  assert sorted(found["loss"]) == ["loss", "reco loss", "validation"]
  assert len(found["learning rate"]) == 1
  assert found["mIoU, percent"][0] == "mIoU"
  of_classes = found["IoU of each class, percent"]
  assert sorted(of_classes) == sorted(f"class {k}" for k in range(1, classes))  # 0 has no value


@pytest.mark.parametrize("classes", [1, 150])
def test_the_least_and_the_most(classes):
  figure = curves.run_figure(history(3, classes, evaluations=classes > 1), info(classes), "run")
  figure.canvas.draw()
  texts = [text.get_text() for text in figure.axes[-1].texts]
  assert texts == ["no evaluation yet"] if classes == 1 else len(texts) == 12


def test_the_best_score_is_marked():
  found = history(10, 2)
  found.evaluations[2]["miou_present"] = 0.875
  axes = curves.run_figure(found, info(2), "run").axes[2]
  assert axes.texts[-1].get_text() == "best 87.50 at step 300"
  assert axes.lines[-1].get_xydata().tolist() == [[300, 87.5]]


def test_other_networks_scores_are_beside_it():
  found = history(10, 2)
  for row in found.evaluations:
    row["teacher_miou_present"] = 0.25
  found = panels(curves.run_figure(found, info(2), "run"))
  assert found["mIoU, percent"][:2] == ["mIoU", "teacher mIoU"]


def test_nothing_logged_is_a_picture_too():
  figure = curves.run_figure(History([], [], []), info(3), "run")
  assert [axes.texts[0].get_text() for axes in figure.axes] == [
    "nothing logged yet", "not logged", "no evaluation yet", "no evaluation yet"]  # fmt: skip


def test_it_is_renewed_at_each_evaluation(tmp_path):
  reporter, data = reporter_of(tmp_path), info(2)
  pictures = []
  for step in (10, 20):
    reporter.train(step, {"loss": 1.0 / step, "thresholds": [0.5, 0.25]})
    reporter.evaluation(step, scores(np.eye(2, dtype=int)), data.class_names, seconds=1.0)
    reporter.curves(data)
    pictures.append((tmp_path / "curves.png").read_bytes())
  reporter.close()
  assert pictures[0] != pictures[1]
  for name in ("curves.png", "pictures/thresholds.png"):
    with Image.open(tmp_path / name) as picture:
      assert min(picture.size) > 400 and len(np.unique(np.asarray(picture))) > 50


def test_of_a_resumed_run_it_shows_what_counts(tmp_path):
  reporter = reporter_of(tmp_path)
  for step in (10, 20, 30):
    reporter.train(step, {"loss": 100.0 * step})
  reporter.close()
  reporter = Reporter(tmp_path, 40, resume_step=10, console=Console(file=io.StringIO()))
  reporter.train(20, {"loss": 1.0})
  reporter.close()
  figure = curves.run_figure(read_history(tmp_path / "metrics.jsonl"), info(2), "run")
  assert figure.axes[0].lines[0].get_xydata().tolist() == [[10, 1000], [20, 1]]


@pytest.mark.parametrize("trouble", ["a folder in its place", "a broken library"])
def test_what_can_not_be_drawn_is_one_line(trouble, tmp_path, monkeypatch):
  out, data = io.StringIO(), info(2)
  reporter = reporter_of(tmp_path, out)
  reporter.train(10, {"loss": 1.0})
  before = len(out.getvalue().splitlines())
  if trouble == "a folder in its place":
    (tmp_path / "curves.png" / "full").mkdir(parents=True)
  else:
    monkeypatch.setattr(plots, "new_figure", lambda *_: 1 / 0)
    monkeypatch.setattr(curves, "new_figure", lambda *_: 1 / 0)
  reporter.curves(data)
  reporter.train(20, {"loss": 1.0})
  reporter.close()
  lines = out.getvalue().splitlines()[before:]
  assert len(lines) == 2 and "curves.png is not written any more, training goes on: " in lines[0]


def test_classes_have_the_palettes_colors():
  data = DatasetInfo("two", ("sky", "road"), np.array([[255, 0, 0], [0, 0, 200]], np.uint8), None)
  figure = curves.class_figure("thresholds", np.arange(2), np.array([[1.0, 0.0], [0.5, 0.0]]), data)
  colors = {line.get_label(): line.get_color() for line in figure.axes[0].lines}
  assert colors["sky"] == pytest.approx((1, 0, 0)) and colors["road"][2] == pytest.approx(200 / 255)


def test_the_library_is_not_read_to_start():
  code = "import sys, launch; print('matplotlib' in sys.modules)"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "False"
