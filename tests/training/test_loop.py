"""Whole runs on the toy scenes with a very small network, in this process."""

import copy
import json
import logging
import os
import shutil
import signal
from unittest import mock

import cv2
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from semiseg_jax.commands import run
from semiseg_jax.input.build import open_data
from semiseg_jax.runtime.checkpoints import Checkpoints
from semiseg_jax.training import loop, setup, step
from semiseg_jax.training import selection as selection_rule
from tests.processes import rows

pytestmark = pytest.mark.usefixtures("traced_fast")


def last_state(workdir):
  """The newest checkpoint's arrays, as numpy by name."""
  with Checkpoints(workdir / "checkpoints", keep=2) as checkpoints:
    newest = checkpoints.path(checkpoints.latest_step())
  return ocp.StandardCheckpointer().restore(newest / "arrays")


def trained_once(config, workdir):
  """The result of a run whose step is traced, and so compiled, a single time."""
  with mock.patch.object(step, "train_step", wraps=step.train_step) as traced:
    result = run.train(config, workdir)
  assert traced.call_count == 1
  return result


SUPERVISED = {
  "training.accumulate": 2, "model.remat": "elementwise", "training.refresh_batch_stats": 2
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tiny_config, tmp_path_factory, traced_fast):
  """(config, workdir, result) of a run that nothing disturbed."""
  config, workdir = tiny_config("supervised", **SUPERVISED), tmp_path_factory.mktemp("finished")
  return config, workdir, trained_once(config, workdir)


def assert_everything_is_there(workdir, result, network):
  assert result["status"] == "finished" and result["network"] == network
  assert json.loads((workdir / "result.json").read_text())["best"] == result["best"]
  assert [row["step"] for row in rows(workdir, "train")] == [2, 4, 6, 8]
  assert [row["step"] for row in rows(workdir, "eval")] == [4, 8]
  assert all(np.isfinite(row["loss"]) for row in rows(workdir, "train"))
  assert list(workdir.glob("pictures/step_00000008/*.png"))
  assert list(workdir.glob("tensorboard/events*"))


def test_a_run_leaves_everything_behind(finished):
  assert_everything_is_there(*finished[1:], "student")


@pytest.mark.parametrize(
  ("method", "values"),
  [
    pytest.param(
      "mean_teacher",  # the second stream of labels: the same scenes as if of another domain
      {
        "data.workers": 1,
        "model.dtype": "bfloat16",
        "data.domain.name": "toy_scenes",
        "data.domain.batch": 16,
      },
      marks=pytest.mark.slow,
    ),
    pytest.param(
      "reco",
      {"data.partial": "p5", "data.labeled": "all", "method.partial": True},
      marks=pytest.mark.slow,  # test_commands.py runs it as a user does
    ),
  ],
)
def test_so_do_those_with_a_teacher(method, values, tiny_config, tmp_path):
  result = trained_once(tiny_config(method, **values), tmp_path)
  assert_everything_is_there(tmp_path, result, "teacher")


@pytest.mark.parametrize(
  ("method", "values"),
  [
    ("supervised", SUPERVISED),
    pytest.param("reco", {"training.refresh_batch_stats": 2}, marks=pytest.mark.slow),
    pytest.param(  # the longest test of all
      "memory_bank",
      {"training.refresh_batch_stats": 2, "training.reload_best_after": 1, "evaluation.every": 2},
      marks=pytest.mark.slow,
    ),
  ],
)
def test_interrupted_and_resumed_equals_unbroken(
  method, values, tiny_config, finished, tmp_path, monkeypatch
):
  config, went_back = tiny_config(method, **values), []

  def judge_step_4(selection, step, score, **rule):
    if rule["patience"] and step == 4:
      went_back.append(step)
      return selection_rule.Verdict(selection._replace(since=step), False, True)
    return selection_rule.judge(selection, step, score, **rule)

  monkeypatch.setattr(loop, "judge", judge_step_4)
  workdirs = {"unbroken": tmp_path / "unbroken", "broken": tmp_path / "broken"}
  if method == "supervised":
    _, workdirs["unbroken"], unbroken_result = finished
  else:
    unbroken_result = run.train(config, workdirs["unbroken"])

  update, count = loop._Training.update, 0

  def update_then_sigterm(self):
    nonlocal count
    update(self)
    count += 1
    if count == 5:
      os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(loop._Training, "update", update_then_sigterm)
    result = run.train(config, tmp_path / "broken")
  assert (result["status"], result["step"]) == ("interrupted", 5)
  result = run.train(config, tmp_path / "broken")
  assert (result["status"], result["step"]) == ("finished", 8)
  assert went_back == ([4, 4] if method == "memory_bank" else [])
  for key in ("best", "refreshed"):
    assert result[key] == unbroken_result[key]
  with monkeypatch.context() as patch:
    patch.setattr(loop, "refresh", None)  # nothing is left to do, nor done twice
    again = run.train(config, tmp_path / "broken")
  assert again["best"] == result["best"] and again["refreshed"] == result["refreshed"]

  unbroken, broken = map(last_state, workdirs.values())
  jax.tree.map(np.testing.assert_array_equal, broken, unbroken)
  losses = [
    {row["step"]: row["loss"] for row in rows(workdir, "train")} for workdir in workdirs.values()
  ]
  assert losses[1][8] == losses[0][8]  # the same batches, not only the same end
  if method == "memory_bank":
    memory = unbroken["method_state"]
    assert memory["bank"]["count"].any()
    monkeypatch.setattr(setup, "sharing_devices", lambda _: jax.devices()[:2])
    on_two = restored_state(config, tmp_path / "broken")
    assert on_two["method_state"].bank.rows.addressable_data(0).shape[1] == 30
    jax.tree.map(
      np.testing.assert_array_equal,
      on_two["method_state"].bank.rows,
      unbroken["method_state"]["bank"]["rows"],
    )


def restored_state(config, workdir):
  """The newest checkpoint laid over the devices that there are now."""
  made = setup.build(config, open_data(config))
  fresh = made.initial_state(made.mesh)
  with Checkpoints(workdir / "checkpoints", keep=2) as checkpoints:
    return checkpoints.restore(loop.arrays_of(fresh))[0]


def test_diverged_run_stops_and_names_the_last_good_checkpoint(tiny_config, tmp_path, monkeypatch):
  update = loop._Training.update

  def poisoned(self):
    if int(self.state.step) == 5:
      nan = jax.tree.map(lambda x: x * np.float32("nan"), self.state.networks)
      self.state = self.state.replace(networks=nan)
    update(self)

  monkeypatch.setattr(loop._Training, "update", poisoned)
  good = tmp_path / "checkpoints" / "4"
  with pytest.raises(loop.DivergedError, match=rf"step 6 is not finite.*{good}"):
    run.train(tiny_config("supervised", **SUPERVISED), tmp_path)
  assert good.is_dir() and not (tmp_path / "checkpoints" / "8").exists()


def test_a_run_ends_early_and_stays_ended(tiny_config, tmp_path, capsys):
  """No score is better than the first one of a network that doesn't move."""
  values = {"optimizer.learning_rate": 0.0, "optimizer.weight_decay": 0.0, "evaluation.every": 1,
            "evaluation.ties_replace": False, "training.stop_after": 2,
            "evaluation.monitor": "loss", "training.refresh_batch_stats": 1,
            "training.checkpoint_every": 100}  # fmt: skip
  config = tiny_config("supervised", steps=50, **values)
  result = run.train(config, tmp_path)
  assert result["status"] == "finished" and result["monitor"] == "loss"
  best, end = result["best"]["step"], result["step"]
  assert end < 50 and "ended early, no better score for more than 2" in capsys.readouterr().out
  assert result["refreshed"]["step"] == end and rows(tmp_path, "eval")[-1]["step"] == end
  assert run.train(config, tmp_path) == result
  assert [row["step"] for row in rows(tmp_path, "eval")] == list(range(1, end + 1)) and best <= end


def test_workdir_of_another_run_is_refused(finished, tiny_config, tmp_path, caplog, monkeypatch):
  workdir = shutil.copytree(finished[1], tmp_path / "copy")
  other = {**SUPERVISED, "model.trunk.width": 8}
  with pytest.raises(ValueError, match=r"another config: model\.trunk\.width: 4 there, 8 now"):
    run.train(tiny_config("supervised", **other), workdir)
  monkeypatch.setattr(loop._Training, "run_to_end", lambda training: training.first_step)
  with caplog.at_level(logging.WARNING):
    goes_on_from = run.train(tiny_config("supervised", steps=9, **SUPERVISED), workdir)
  assert "training.steps: 8 there, 9 now" in caplog.text and goes_on_from == 8


@pytest.mark.parametrize("steps", [8, 4])
def test_a_run_that_is_done_is_left_alone(steps, finished, tiny_config, tmp_path, capsys):
  workdir = shutil.copytree(finished[1], tmp_path / "copy")
  files = lambda: {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
  before = files()
  again = run.train(tiny_config("supervised", steps=steps, **SUPERVISED), workdir)
  assert again == json.loads((workdir / "result.json").read_text()) and files() == before
  assert f"the run in {workdir} is done: 8 steps, best" in capsys.readouterr().out


def test_evaluate_gives_the_best_score_again(finished, tmp_path):
  config, workdir, result = finished
  config = copy.deepcopy(config)
  again = run.evaluate(config, workdir)
  assert again["step"] == result["best"]["step"]
  assert again["miou_present"] == pytest.approx(result["best"]["score"], abs=1e-6)
  check_report(again, workdir)
  with pytest.raises(ValueError, match=r"knows 10 classes.*has 2 \(sky, road\)"):
    run.evaluate(folder_config(config, tmp_path / "folder"), workdir)
  config.evaluation.network = "teacher"
  with pytest.raises(ValueError, match=r"holds its student, .* and not its teacher: train with"):
    run.evaluate(config, workdir)
  config.evaluation.network = None
  config.model.normalization = "half_bgr"  # shapes alone would not tell
  with pytest.raises(ValueError, match=r"trained with config\.model\.normalization='imagenet'"):
    run.evaluate(config, workdir)
  config.model.normalization = "imagenet"
  config.model.trunk.width = 8
  with pytest.raises(ValueError, match=r"trained with config\.model\.trunk\.width=4, not 8"):
    run.evaluate(config, workdir)
  with pytest.raises(FileNotFoundError, match="train first"):
    run.evaluate(config, tmp_path / "elsewhere")


def check_report(found, workdir):
  """Of the rule "max", whose scores over pixels are training's."""
  written = json.loads((workdir / "evaluation.json").read_text())
  assert written["miou_present"] == found["miou_present"] and written["images"] == 20
  of_pixels = [value for value in written["of_pixels"]["iou"].values() if value is not None]
  assert np.mean(of_pixels) == pytest.approx(found["miou_present"])
  assert 0 < written["of_images"]["Mean_Dice"] < 1
  names = {path.name for path in workdir.glob("evaluation*")}
  assert names == {f"evaluation{end}" for end in (
    ".json", ".csv", "_images.csv", "_confusion.csv", "_confusion.png")}  # fmt: skip


def folder_config(config, root):
  """The same run on a folder with two classes."""
  for name, level in (("images", 90), ("masks", 1)):
    (root / name).mkdir(parents=True)
    for number in range(8):
      shape = (32, 32, 3) if name == "images" else (32, 32)
      cv2.imwrite(str(root / name / f"{number}.png"), np.full(shape, level, np.uint8))
  config = copy.deepcopy(config)
  config.data.name, config.data.root, config.data.class_names = "folder", str(root), "sky,road"
  return config


@pytest.mark.parametrize(
  ("method", "change", "message"),
  [
    ("supervised", {"data.labeled": "reco/500_0"}, "500"),
    ("supervised", {"data.name": "no_such_set"}, "no_such_set"),
    ("supervised", {"model.trunk.name": "resnet19"}, "resnet19"),
    ("supervised", {"model.dtype": "float16"}, "choose from .auto., .float32., .bfloat16."),
    ("supervised", {"training.log_every": 0}, "must be at least 1"),
    ("supervised", {"evaluation.size": (64, 64)}, "evaluation size"),
    ("mean_teacher", {"method.mixing": "mixup"}, "choose from 'cutout'"),
    ("mean_teacher", {"data.partial": "p1"}, "sparse labels need both"),
    ("mean_teacher", {"evaluation.network": "both"}, "choose from 'student', 'teacher'"),
    (
      "memory_bank",
      {"data.domain.name": "toy_scenes", "data.domain.batch": 16, "data.labeled_batch": 8},
      r"config\.data\.domain\.batch=16 but config\.data\.labeled_batch=8: .* the same size",
    ),
    (
      "memory_bank",
      {"data.domain.name": "toy_scenes", "data.domain.batch": 4, "method.alternate": True},
      "leave out one of the two",
    ),
  ],
)
def test_bad_values_fail_before_anything_is_compiled(
  method, change, message, tiny_config, tmp_path, monkeypatch
):
  monkeypatch.setattr(setup, "make_train_step", None)  # not to be reached
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    run.train(tiny_config(method, **change), tmp_path)
