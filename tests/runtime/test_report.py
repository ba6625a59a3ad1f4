"""What a run leaves for people: lines, tables, events, pictures, the result."""

import io
import json
import math
import struct

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from semiseg_jax.evaluation.metrics import scores
from semiseg_jax.files import write_json
from semiseg_jax.input.sources import DatasetInfo
from semiseg_jax.runtime.report import Reporter, duration, jsonable, print_scores

SCORES = scores(np.array([[3, 0, 0], [1, 4, 0], [0, 0, 0]]))
NAMES = ["road", "side[walk]", "sky"]


def console(terminal=False):
  return Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)


def rows(workdir):
  def refuse(name):
    raise AssertionError(f"{name} is not JSON")

  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line, parse_constant=refuse) for line in lines]


def events(workdir):
  """Every TensorBoard event: a length, two checksums and a protocol buffer each."""
  found = []
  for path in sorted((workdir / "tensorboard").glob("events*")):
    data = path.read_bytes()
    while data:
      (size,) = struct.unpack("<Q", data[:8])
      found.append(Event.FromString(data[12 : 12 + size]))
      data = data[16 + size :]
  return found


def scalars(workdir):
  return {(v.tag, e.step): v.simple_value for e in events(workdir) for v in e.summary.value}


def test_everything_is_written(tmp_path):
  out = console()
  reporter = Reporter(tmp_path, 40, console=out)
  reporter.train(10, {"loss": 1.25, "reco_loss": math.nan, "images_per_second": 9.0})
  reporter.evaluation(10, SCORES, NAMES, seconds=75.2, loss=np.float32(0.5))
  reporter.panels(10, [np.full((4, 6, 3), 7, np.uint8)], ["city/one image"])
  reporter.close()

  train, evaluation = rows(tmp_path)
  assert (train["step"], train["kind"], train["loss"]) == (10, "train", 1.25)
  assert train["reco_loss"] is None and train["images_per_second"] == 9.0
  assert (evaluation["kind"], evaluation["loss"], evaluation["seconds"]) == ("eval", 0.5, 75.2)
  assert evaluation["iou"] == {"road": 0.75, "side[walk]": 0.8, "sky": None}
  assert evaluation["miou"] is None and evaluation["miou_present"] == pytest.approx(0.775)

  found = scalars(tmp_path)
  assert found["train/loss", 10] == 1.25 and found["eval/loss", 10] == 0.5
  assert ("train/reco_loss", 10) not in found and ("eval/miou", 10) not in found
  assert found["eval_iou/road", 10] == 0.75
  assert any(tag.startswith("validation/") for tag, _ in found)
  with Image.open(tmp_path / "pictures/step_00000010/city_one_image.png") as picture:
    assert (np.asarray(picture) == 7).all() and picture.size == (6, 4)

  text = out.file.getvalue()
  assert "step 10/40  loss 1.2500" in text and "images/s" in text and "left" in text
  assert "side[walk]" in text and "80.00" in text and "mIoU 77.50 (of 2 classes" in text
  assert "1:15" in text and "\x1b" not in text


def test_progress_line_on_a_terminal(tmp_path):
  out = console(terminal=True)
  reporter = Reporter(tmp_path, 40, console=out)
  reporter.train(10, {"loss": 1.25, "images_per_second": 12.5})
  reporter.evaluation(10, SCORES, NAMES, seconds=1.0)
  reporter.close()
  text = out.file.getvalue()
  for part in ("step 10/40", "25%", "loss 1.2500", "12.5 images/s", "left", "road"):
    assert part in text
  assert rows(tmp_path)[0]["images_per_second"] == 12.5


def test_resumed_run_reads_like_an_unbroken_one(tmp_path):
  reporter = Reporter(tmp_path, 40, console=console())
  for step in (10, 20, 30):
    reporter.train(step, {"loss": float(step)})
  reporter.close()
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 15, "los')  # killed while writing

  reporter = Reporter(tmp_path, 40, resume_step=20, console=console())
  reporter.train(30, {"loss": 31.0})
  reporter.train(40, {"loss": 40.0})
  reporter.close()
  assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [
    (10, 10.0), (20, 20.0), (30, 31.0), (40, 40.0)]  # fmt: skip
  assert [event.step for event in events(tmp_path) if event.session_log.status == 1] == [21]

  Reporter(tmp_path, 40, console=console()).close()  # from the start
  assert rows(tmp_path) == []


def test_disabled_on_all_hosts_but_one(tmp_path):
  reporter = Reporter(tmp_path / "run", 40, enabled=False)
  reporter.train(10, {"loss": 1.0})
  reporter.evaluation(10, SCORES, NAMES, seconds=1.0)
  reporter.panels(10, [np.zeros((4, 4, 3), np.uint8)], ["a"])
  reporter.close()
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("classes", [2, 10, 19, 37])
def test_table_has_every_class_once(classes):
  out, names = console(), [f"class_{i:02d}" for i in range(classes)]
  print_scores(5, scores(np.eye(classes, dtype=int)), names, 2.0, out)
  text = out.file.getvalue()
  assert all(text.count(name) == 1 for name in names)
  assert len(text.splitlines()) < 20 + classes / 3


def test_json_is_replaced_at_once_and_holds_no_nan(tmp_path):
  path = tmp_path / "result.json"
  write_json(path, {"status": "finished"})
  values = {"best": {"miou": np.float32(0.5), "step": np.int64(3)}, "iou": np.array([1.0, np.nan])}
  write_json(path, jsonable({**values, "loss": math.inf}))
  found = json.loads(path.read_text())
  assert found == {"best": {"miou": 0.5, "step": 3}, "iou": [1.0, None], "loss": None}
  assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard", "pictures"])
def test_what_can_be_made_anew_never_stops_a_run(tmp_path, name):
  """Where a file should be there is a folder, or the other way round."""
  if name == "metrics.jsonl":
    (tmp_path / name).mkdir()
  else:
    (tmp_path / name).write_text("mine")
  out = console()
  reporter = Reporter(tmp_path, 40, resume_step=5, console=out)
  for step in (10, 20):
    reporter.train(step, {"loss": 1.0})
    reporter.evaluation(step, SCORES, NAMES, seconds=1.0)
    reporter.panels(step, [np.zeros((4, 4, 3), np.uint8)], ["a"])
    reporter.curves(DatasetInfo("streets", tuple(NAMES), np.eye(3, dtype=np.uint8), None))
  reporter.close()
  assert out.file.getvalue().count(f"{tmp_path / name} is not written any more") == 1
  others = {"metrics.jsonl", "tensorboard", "pictures"} - {name}
  assert all((tmp_path / other).stat().st_size for other in others)


def test_lines_that_are_none_of_ours_are_dropped(tmp_path):
  lines = [b'{"step": 1, "kind": "train"}', b"\xff\xfe", b'{"step": "x"}', b"[3]", b""]
  (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
  Reporter(tmp_path, 40, resume_step=5, console=console()).close()
  assert [row["step"] for row in rows(tmp_path)] == [1]


def test_durations():
  assert [duration(s) for s in (4.6, 754, 3723, -1)] == ["0:05", "12:34", "1:02:03", "0:00"]
