"""The README's commands, in processes of their own as a user runs them."""

import json
import random
import re
import signal

import cv2
import jax
import numpy as np
import pytest
from absl import app
from PIL import Image

import semiseg_jax
from semiseg_jax import __main__
from semiseg_jax.commands import check
from semiseg_jax.convert.checkpoint import trained_network
from tests.command_line import ROOT, launched
from tests.compare import assert_same_bits
from tests.processes import (
  SMALL,
  arrays,
  clean_environment,
  finish,
  launch,
  start,
  wait_for_checkpoint,
  wait_for_step,
)
from tests.toy import make_folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
  return clean_environment(tmp_path_factory.mktemp("home"))


@pytest.mark.slow  # tests/training/test_loop.py interrupts a run every time
def test_killed_at_a_random_step_ends_in_the_same_bits(environment, tmp_path):
  options = [*SMALL, "--config.training.steps=30", "--config.training.checkpoint_every=4",
             "--config.evaluation.every=15"]  # fmt: skip
  unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
  out, _ = finish(start(environment, *launch(unbroken, *options)))
  assert "mIoU" in out and "step 30, IoU" in out

  process = start(environment, *launch(killed, *options))
  step = random.randint(5, 28)
  wait_for_step(process, killed, step)
  wait_for_checkpoint(process, killed)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  out, _ = finish(start(environment, *launch(killed, *options)))
  assert "resuming at step" in out, f"killed at step {step}\n{out}"

  assert_same_bits(arrays(killed, 30), arrays(unbroken, 30), f"killed at step {step}")
  results = [json.loads((path / "result.json").read_text()) for path in (killed, unbroken)]
  assert results[0] == results[1]

  check_evaluate_and_predict(environment, unbroken, options, tmp_path)


def check_evaluate_and_predict(environment, workdir, options, tmp_path):
  out, _ = finish(start(environment, *launch(workdir, *options, "--mode=evaluate")))
  best = json.loads((workdir / "result.json").read_text())["best"]
  again = json.loads((workdir / "evaluation.json").read_text())
  assert again["miou_present"] == pytest.approx(best["score"]) and f"step {best['step']}" in out

  pictures = tmp_path / "pictures"
  pictures.mkdir()
  for name, size in (("one.png", (40, 50, 3)), ("two.jpg", (33, 70, 3))):
    cv2.imwrite(str(pictures / name), np.random.default_rng(0).integers(0, 256, size, np.uint8))
  predict = ["--mode=predict", f"--workdir={workdir}", f"--images={pictures}"]
  finish(start(environment, "launch.py", *predict))
  with Image.open(workdir / "predictions" / "two.png") as prediction:
    assert prediction.mode == "P" and prediction.size == (70, 33)
  check_conversion(environment, workdir, tmp_path)


def check_conversion(environment, workdir, tmp_path):
  """To PyTorch, back into a checkpoint, and out as a program, by the README's commands."""
  convert = ["-m", "semiseg_jax", "convert"]
  file, back = tmp_path / "mine.safetensors", tmp_path / "back"
  program = tmp_path / "mine.jaxexport"
  out, _ = finish(start(environment, *convert, str(workdir), f"--to_torch={file}", "--verify"))
  assert "ReCo's DeepLab" in out and "ok: " in out and "wrong: " not in out
  finish(start(environment, *convert, str(file), f"--out={back}", f"--export={program}"))
  restored, _, about = trained_network(back)
  jax.tree.map(np.testing.assert_array_equal, restored, trained_network(workdir)[0])
  assert "road" in about["class_names"] and program.stat().st_size > 0


def test_without_a_config_there_is_only_prediction(tmp_path):
  with pytest.raises(app.UsageError, match="--config is missing"):
    launched(f"--workdir={tmp_path}")


@pytest.mark.slow  # test_loop.py sends SIGTERM every time, within its process
def test_sigterm_saves_and_ends_cleanly(environment, tmp_path):
  process = start(environment, *launch(tmp_path, *SMALL, "--config.training.steps=100000"))
  wait_for_step(process, tmp_path, 3)
  process.send_signal(signal.SIGTERM)
  finish(process, code=75)  # which schedulers retry
  result = json.loads((tmp_path / "result.json").read_text())
  assert result["status"] == "interrupted"
  assert int(arrays(tmp_path, result["step"])["step"]) == result["step"] >= 3


@pytest.mark.usefixtures("traced_fast")
def test_folder_from_check_to_prediction(tmp_path, capsys):
  make_folder(tmp_path / "mine")
  assert check.main([str(tmp_path / "mine")]) == 0
  assert "road" in capsys.readouterr().out
  options = [
    *SMALL, f"--config.data.root={tmp_path / 'mine'}", "--config.training.steps=2",
    "--config.data.palette=0000ff,808080", "--config.data.resize=36",
    "--config.data.labeled_batch=2", "--config.data.unlabeled_batch=2",
  ]  # fmt: skip
  config = f"--config={ROOT / 'configs' / 'folder_reco.py:size=small'}"
  run = [config, f"--workdir={tmp_path / 'run'}", *options]
  assert launched(*run) == 0
  out = capsys.readouterr().out
  assert "road" in out and "mIoU" in out and "2 of 8 devices are used" in out
  images = tmp_path / "mine" / "images"
  (images / "damaged.png").write_bytes(b"no picture")
  predict = [*run, "--mode=predict", f"--images={images}"]
  assert launched(*predict) == 1 and "damaged.png" in capsys.readouterr().err
  assert launched(*predict, "--skip_bad", "--overlays") == 0
  out = capsys.readouterr().out
  assert "6 predictions" in out and "1 damaged left out" in out
  with Image.open(tmp_path / "run" / "predictions" / "0.png") as prediction:
    assert prediction.getpalette()[:6] == [0, 0, 255, 128, 128, 128]
  assert (tmp_path / "run" / "predictions" / "0_overlay.png").is_file()
  (images / "damaged.png").unlink()
  check_hub_folder(tmp_path)
  check_predictions(tmp_path, capsys)


def check_hub_folder(tmp_path):
  """Made of the run, it predicts the same from Python, and its card has the run's score."""
  pytest.importorskip("safetensors")
  hub = tmp_path / "hub"
  assert __main__.main(["convert", str(tmp_path / "run"), f"--hub={hub}"]) == 0
  card = (hub / "README.md").read_text()
  assert "method `reco`: its teacher at step 2" in card and "`miou_present` on the" in card
  found = semiseg_jax.load(hub).predict(tmp_path / "mine" / "images" / "0.png")
  with Image.open(tmp_path / "run" / "predictions" / "0.png") as prediction:
    np.testing.assert_array_equal(found.labels, np.asarray(prediction))


def check_predictions(tmp_path, capsys):
  """Without a config, of a pattern, through windows; and what is wrong in one line."""
  run = [f"--workdir={tmp_path / 'run'}", "--mode=predict"]
  run += [f"--images={tmp_path / 'mine' / 'im*' / '[01].png'}", f"--out={tmp_path / 'out'}"]
  windows = "--inference=mode=sliding, window=(32, 32), flip=False, batch=2"
  assert launched(*run, windows, "--confidence", "--probabilities") == 0
  assert "2 predictions" in capsys.readouterr().out
  out = tmp_path / "out" / "images"
  names = {f"{number}{end}" for number in "01" for end in (".png", ".npz", "_confidence.png")}
  assert {path.name for path in out.iterdir()} == names
  with np.load(out / "0.npz") as file:
    assert file["probabilities"].shape == (40, 48, 2)
  for options, message in {
    ("--inference=mode=slide",): "config.inference.mode='slide'",
    ("--inference=modus=sliding",): "did you mean 'mode'",
    ("--inference=sliding",): "should be like mode=sliding",
    ("--format=voc",): "VOC's 21 classes",
    ("--format=cityscapes", "--overlays"): "one PNG a picture",
  }.items():
    assert launched(*run, *options) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  ("config", "args", "message"),
  [
    (
      "configs/city_reco.py",
      [],
      r"(?s)leftImg8bit_trainvaltest\.zip.*gtFine_trainvaltest\.zip"
      r".*python -m data\.prepare cityscapes",
    ),
    ("configs/pascal_reco.py", [], r"(?s)VOCtrainval.*python -m data\.prepare pascal"),
    ("configs/toy_reco.py", ["--config.data.name=streets"], "prepare the dataset streets first"),
    ("configs/toy_reco.py", ["--config.data.domain.name=gta5"], r"python -m data\.prepare gta5"),
    ("configs/folder_reco.py", ["--config.data.root=/no/such/folder"], "/no/such/folder"),
    ("configs/folder_reco.py", [], "needs root"),
    ("configs/folder_reco.py", ["--config.data.palette=red"], "should be colours such as"),
    ("configs/toy_reco.py", ["--config.method.mixing=mixup"], "choose from 'cutout'"),
    ("configs/toy_reco.py", ["--mode=predict"], "needs --images"),
    ("configs/toy_reco.py", ["--mode=evaluate"], "train first"),
    (
      "configs/toy_reco.py",
      ["--mode=evaluate", "--config.evaluation.decide=rank"],
      "choose from 'max'",
    ),
    ("configs/toy_reco.py", ["--mode=evaluate", "--split=test"], "has no such set with masks"),
    *(
      (
        "configs/toy_reco.py",
        [f"--mode={mode}", "--config.training.compile_cache=gs://b/programs"],
        "config.training.compile_cache: gs://b/programs must be on this machine",
      )
      for mode in ("train", "evaluate", "predict")
    ),
  ],
)
def test_what_is_wrong_in_one_line(config, args, message, data_dir, tmp_path, capsys, monkeypatch):
  monkeypatch.setenv("SEMISEG_DATA", str(data_dir))
  assert launched(f"--config={ROOT / config}", f"--workdir={tmp_path}", *args) == 1
  err = capsys.readouterr().err
  assert re.search(message, err) and err.startswith("launch.py: "), err
