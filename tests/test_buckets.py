"""Runs and data in a bucket, against a stand-in for the storage: tests/buckets.py."""

import collections
import json
import os
import shutil
import signal
import socket
import sys
import time
import types

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import semiseg_jax
from semiseg_jax import __main__, buckets
from semiseg_jax.buckets import bucket_path, named, reached
from semiseg_jax.commands import check, convert
from semiseg_jax.files import read_json, write_json
from semiseg_jax.input import local_copy as copying
from semiseg_jax.input.datasets import open_dataset
from semiseg_jax.input.local_copy import local_copy
from semiseg_jax.paths import local_path, user_path
from semiseg_jax.runtime.checkpoints import Checkpoints
from semiseg_jax.runtime.lock import held
from semiseg_jax.runtime.report import Reporter
from tests.buckets import BUCKET, served
from tests.command_line import launched
from tests.compare import assert_same_bits
from tests.processes import SMALL, arrays, clean_environment, finish, launch, rows, start
from tests.runtime.test_report import NAMES, SCORES, console, scalars
from tests.toy import make_folder, prepared_scenes

gcsfs = pytest.importorskip("gcsfs")
pytest.importorskip("gcp_storage_emulator")


@pytest.fixture(scope="module")
def environment():
  """Of this process too, which finds the stand-in."""
  with served() as known, pytest.MonkeyPatch.context() as patch:
    for key, value in known.items():
      patch.setenv(key, value)
    yield known


@pytest.fixture
def folder(environment, request, tmp_path, monkeypatch):
  """A folder of the bucket for one test alone; copies go into a folder of their own."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  return bucket_path(f"gs://{BUCKET}/{request.node.name}")


def upload(local, target):
  for path in local.rglob("*"):
    if path.is_file():
      (target / str(path.relative_to(local))).write_bytes(path.read_bytes())


def test_a_path_keeps_its_bucket():
  path = user_path("gs://runs/a") / "b"
  assert str(path) == "gs://runs/a/b" and path.name == "b"
  assert user_path("~/gs:") == user_path("~") / "gs:"
  with pytest.raises(ValueError, match="gs://BUCKET/FOLDER"):
    user_path("gs:///a")
  with pytest.raises(ValueError, match="gs://runs/a must be on this machine"):
    local_path("gs://runs/a")


def test_without_the_package_it_is_named(monkeypatch):
  buckets._epath.cache_clear()
  monkeypatch.setitem(sys.modules, "gcsfs", None)
  with pytest.raises(ImportError, match=r"^gs://a/b needs pip install 'semiseg_jax\[gcs\]'$"):
    user_path("gs://a/b")


def test_a_bucket_that_is_not_there(folder):
  with pytest.raises(FileNotFoundError, match="there is no bucket gs://nowhere: make it"):
    reached(bucket_path("gs://nowhere/x"))
  assert reached(folder) == folder


def test_no_way_to_the_bucket_is_one_line(folder, monkeypatch, caplog):
  async def at_once(_):
    pass

  monkeypatch.setattr(gcsfs.retry, "asyncio", types.SimpleNamespace(sleep=at_once))
  monkeypatch.setattr(buckets, "_PATIENCE", 0)
  monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")  # where nothing listens
  with pytest.raises(ConnectionError, match=r"^gs://far/x: the bucket can't be reached \(.*\)$"):
    reached(bucket_path("gs://far/x"))
  assert [record.getMessage() for record in caplog.records] == [
    "gs://far/x doesn't answer yet; it is tried for about half a minute"
  ]


@pytest.mark.parametrize(
  "error",
  [
    OSError("Forbidden: https://storage/b/runs/o\nno storage.objects.list"),
    gcsfs.retry.HttpError({"code": 401, "message": "Anonymous caller"}),
  ],
)
def test_no_permission_is_one_line(error):
  message = r"^gs://runs/x: this account may not .* needs roles/"
  with pytest.raises(PermissionError, match=message), named("gs://runs/x"):
    raise error
  with pytest.raises(type(error)), named("/runs/x"):  # not of a bucket
    raise error


ARRAYS = {"a": jnp.arange(6.0), "b": {"c": jnp.ones((3, 4), jnp.bfloat16)}}


def test_checkpoints(folder):
  with Checkpoints(folder, keep=2) as writer, Checkpoints(folder, keep=2) as reader:
    assert reader.restore(ARRAYS) is None
    for step in (1, 2, 3):
      writer.save(step, ARRAYS | {"a": ARRAYS["a"] + step}, {"step": step})
    writer.wait()
    (folder / "4" / "arrays" / "d").write_text("of a save that was killed")
    restored, about = reader.restore(ARRAYS)
    assert about == {"step": 3}
    assert_same_bits(restored, ARRAYS | {"a": ARRAYS["a"] + 3}, "restored")
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3", "4"]
  with Checkpoints(folder, keep=2) as writer:  # what was begun there is no obstacle
    writer.save(4, ARRAYS, {"step": 4})
  assert Checkpoints(folder, keep=2).about() == {"step": 4}


def test_a_checkpoint_that_is_out_of_reach_is_not_damaged(folder, monkeypatch):
  with Checkpoints(folder, keep=2) as checkpoints:
    checkpoints.save(1, ARRAYS, {})
    checkpoints.wait()

    def cut(*_, **__):
      raise ValueError("Error reading gs://...: UNAVAILABLE: connection lost")

    monkeypatch.setattr(checkpoints._reader, "restore", cut)
    with pytest.raises(ConnectionError, match=f"{folder}/1 can't be read: .*UNAVAILABLE"):
      checkpoints.about()


def test_a_damaged_checkpoint_is_skipped(folder, caplog):
  with Checkpoints(folder, keep=2) as checkpoints:
    for step in (1, 2):
      checkpoints.save(step, ARRAYS, {"step": step})
    checkpoints.wait()
    (folder / "2" / "about" / "metadata").unlink()
    assert checkpoints.about() == {"step": 1}
  assert f"skipping damaged checkpoint {folder}/2" in caplog.text


def test_names_that_are_patterns_are_refused(environment):
  with pytest.raises(ValueError, match=r"gs://runs/crop=\[32\]: .* without any of"):
    Checkpoints("gs://runs/crop=[32]", keep=1)


def test_who_is_there_is_said(folder, caplog):
  with held(folder):
    assert read_json(folder / "lock", "")["process"] == os.getpid()
    assert f"{folder} has no locks" in caplog.text
  assert not (folder / "lock").exists()
  here = {"host": socket.gethostname(), "process": os.getppid(), "since": "2026"}
  write_json(folder / "lock", here)
  with pytest.raises(ValueError, match=f"in use by another run: process {os.getppid()} on"):
    held(folder).__enter__()
  write_json(folder / "lock", here | {"host": "other"})
  with held(folder):
    assert f"the last to say so was process {os.getppid()} on other" in caplog.text


def report(workdir, steps, resume_step=0):
  reporter = Reporter(workdir, 40, console=console(), resume_step=resume_step)
  for step in steps:
    reporter.train(step, {"loss": float(step), "images_per_second": 9.0})
    reporter.panels(step, [np.full((4, 6, 3), step, np.uint8)], ["one"])
    reporter.evaluation(step, SCORES, NAMES, seconds=7.0)
  return reporter


def test_what_is_reported_is_there_as_on_a_disk(folder, tmp_path):
  for workdir in (tmp_path / "run", folder):
    report(workdir, [10, 20])  # killed: nothing is closed
    report(workdir, [20, 30], resume_step=10).close()
  assert rows(folder, "eval") == rows(tmp_path / "run", "eval")
  assert [row["step"] for row in rows(folder, "train")] == [10, 20, 30]
  local = tmp_path / "events"
  shutil.copytree(local_copy(folder / "tensorboard"), local / "tensorboard")
  assert scalars(local) == scalars(tmp_path / "run")
  with (folder / "pictures/step_00000030/one.png").open("rb") as file, Image.open(file) as picture:
    assert (np.asarray(picture) == 30).all()


def test_a_report_that_can_not_be_sent_is_sent_later(folder, monkeypatch):
  reporter = report(folder, [10])

  def forbidden(*_):
    raise OSError("Forbidden: https://storage/b/runs/o\nno storage.objects.create")

  with monkeypatch.context() as patch:
    patch.setattr(type(folder), "write_bytes", forbidden)
    reporter.train(20, {"loss": 1.0})
    reporter.flush()
  lines = reporter._console.file.getvalue().splitlines()
  assert sum("can't be written now, training goes on: " in line for line in lines) == 2
  assert len(rows(folder, "train")) == 1
  reporter.close()
  assert len(rows(folder, "train")) == 2


def test_a_folder_is_copied_once(folder, capsys):
  (folder / "a.txt").write_text("one")
  (folder / "sub" / "b.txt").write_text("two")
  copy = local_copy(folder)
  assert (copy / "a.txt").read_text() == "one" and (copy / "sub" / "b.txt").read_text() == "two"
  out = capsys.readouterr().out
  assert f"from {folder} to {copy}" in out and "copied 2 files" in out
  assert local_copy(folder) == copy and not capsys.readouterr().out
  (folder / "sub" / "b.txt").write_text("three")
  (folder / "a.txt").unlink()
  assert (local_copy(folder) / "sub" / "b.txt").read_text() == "three"
  assert [path.name for path in copy.rglob("*.txt")] == ["b.txt"]
  assert "copied 1 files" in capsys.readouterr().out
  assert local_copy(folder / "sub" / "b.txt").read_text() == "three"
  with pytest.raises(FileNotFoundError, match=f"there is nothing in {folder}/no"):
    local_copy(folder / "no")


def test_nothing_is_copied_to_another_folder(folder, monkeypatch):
  monkeypatch.setattr(copying, "objects", lambda _: {"a/../../b": buckets.Object(1, 1)})
  with pytest.raises(ValueError, match=r"holds 'a/\.\./\.\./b', which would be copied to another"):
    local_copy(folder)


def test_a_full_disk_is_known_before_copying(folder, monkeypatch):
  (folder / "a.txt").write_text("one")
  usage = collections.namedtuple("usage", "free")
  monkeypatch.setattr(copying.shutil, "disk_usage", lambda path: path.is_dir() and usage(2))
  with pytest.raises(OSError, match=r"takes 0\.0 MB and .* left: name another disk by XDG_CACHE"):
    local_copy(folder)


def test_data(folder, tmp_path, capsys):
  make_folder(tmp_path / "mine")
  upload(tmp_path / "mine", folder / "mine")
  upload(prepared_scenes(), folder)
  here = {"root": tmp_path / "mine"}, {"data_dir": prepared_scenes()}
  there = {"root": f"{folder}/mine"}, {"data_dir": f"{folder}"}
  for name, local, remote in zip(("folder", "toy_scenes"), here, there, strict=True):
    ours, theirs = open_dataset(name, **local), open_dataset(name, **remote)
    assert ours.info.name == theirs.info.name and ours.train.ids == theirs.train.ids
    for key in ("image", "label"):
      np.testing.assert_array_equal(ours.train[1][key], theirs.train[1][key])
  assert check.main([f"{folder}/mine"]) == 0 and "no problems" in capsys.readouterr().out
  assert launched("--config=configs/toy_reco.py", f"--config.data.data_dir={folder}/empty") == 1
  assert f"under {folder}/empty" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("args", "message"),
  [
    (["--config=configs/toy_dst_cbc.py"], "a run in rounds needs a folder on this machine"),
    (["--config=configs/toy_reco.py", "--mode=predict", "--images=."], "needs --out=DIR"),
    (["--config=configs/toy_reco.py", "--config.model.init_from=gs://no/x"], "no bucket gs://no"),
    (["--config=configs/toy_reco.py", "--config.data.data_dir=gs://no/x"], "no bucket gs://no:"),
    (["--mode=predict", "--images=gs://runs/x", "--out=."], "gs://runs/x must be on this machine"),
  ],
)
def test_what_needs_files_is_refused(args, message, environment, data_dir, capsys, monkeypatch):
  monkeypatch.setenv("SEMISEG_DATA", str(data_dir))
  assert launched("--workdir=gs://runs/refused", *args) == 1
  err = capsys.readouterr().err
  assert message in err and len(err.splitlines()) == 1
  assert not bucket_path("gs://runs/refused").exists()


def test_what_is_compared_is_here(capsys):
  assert __main__.main(["compare", "gs://runs/x"]) == 1
  assert capsys.readouterr().err.startswith("compare: gs://runs/x must be on this machine")


def test_nothing_is_converted_into_a_bucket(capsys):
  with pytest.raises(SystemExit):
    convert.parser().parse_args(["weights.pth", "--out=gs://runs/x"])
  assert "gs://runs/x must be on this machine" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_and_resumed_in_a_bucket(folder, environment, tmp_path):
  """Ends in the bits of an unbroken run on a disk; is scored and predicts from there."""
  known = clean_environment(tmp_path / "home") | environment
  upload(prepared_scenes(), folder / "data")
  options = [*SMALL, "--config.training.steps=12", "--config.training.checkpoint_every=2",
             "--config.evaluation.every=6"]  # fmt: skip
  unbroken, killed = tmp_path / "unbroken", folder / "run"
  finish(start(known, *launch(unbroken, *options)))
  options += [f"--config.data.data_dir={folder}/data"]

  process = start(known, *launch(killed, *options))
  with Checkpoints(killed / "checkpoints", keep=1) as checkpoints:
    while checkpoints.latest_step() is None and process.poll() is None:
      time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  out, err = finish(start(known, *launch(killed, *options)))
  assert f"from {killed}/checkpoints" in out and "copying" not in out, out
  assert "the last to say so was process" in err

  assert_same_bits(arrays(killed, 12), arrays(unbroken, 12), "resumed")
  results = [json.loads((path / "result.json").read_text()) for path in (killed, unbroken)]
  assert results[0] == results[1]
  assert (killed / "curves.png").exists() and (killed / "pictures").is_dir()
  steps = [[row["step"] for row in rows(path, "train")] for path in (killed, unbroken)]
  assert steps[0] == steps[1]
  check_use(known, killed, options, tmp_path)


def check_use(known, workdir, options, tmp_path):
  finish(start(known, *launch(workdir, *options, "--mode=evaluate")))
  scored = read_json(workdir / "evaluation.json", "")
  best = read_json(workdir / "result.json", "")["best"]
  assert scored["miou_present"] == pytest.approx(best["score"])
  picture = tmp_path / "picture.png"
  cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
  predict = ["--mode=predict", f"--workdir={workdir}", f"--images={picture}", f"--out={tmp_path}/o"]
  finish(start(known, "launch.py", *predict))
  found = semiseg_jax.load(str(workdir)).predict(picture)
  with Image.open(tmp_path / "o" / "picture.png") as prediction:
    np.testing.assert_array_equal(found.labels, np.asarray(prediction))
