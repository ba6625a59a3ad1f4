"""Paths with ~, and files that the system refuses: one line that names them."""

import errno
import os

import pytest
from absl import flags

import launch
from data import prepare
from semiseg_jax import __main__
from semiseg_jax.commands import convert, run
from semiseg_jax.commands import flags as command_flags
from semiseg_jax.convert import checkpoint, hub
from semiseg_jax.input import prepared
from semiseg_jax.input.datasets import open_dataset
from semiseg_jax.runtime.errors import in_one_line, naming
from tests.command_line import launched

CONFIG = "--config=configs/toy_reco.py"
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write() raises it: without a name


@pytest.fixture
def home(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  return tmp_path


def test_flags_know_the_home_directory(home):
  values = flags.FlagValues()
  launch.define_flags(values)
  values(["launch.py", "--workdir=~/runs/a", "--images=~/pictures/**/*.jpg", "--out=~"])
  assert (values.workdir, values.out) == (f"{home}/runs/a", str(home))
  assert values.images == f"{home}/pictures/**/*.jpg"
  words = ["~/w.pth", "--out=~/a", "--to_torch=~/b.pth", "--export=~/c", "--hub=~/d"]
  args = convert.parser().parse_args(words)
  assert args.weights == f"{home}/w.pth"
  assert [args.out, args.to_torch, args.export, args.hub] == [
    home / "a", home / "b.pth", home / "c", home / "d"
  ]  # fmt: skip
  assert convert.parser().parse_args(["hf://a/b/c"]).weights == "hf://a/b/c"


def test_other_paths_know_the_home_directory(home, monkeypatch, capsys):
  monkeypatch.setenv("SEMISEG_DATA", "~/sets")
  assert prepared.default_data_dir() == home / "sets"
  monkeypatch.delenv("SEMISEG_DATA")
  assert prepared.default_data_dir() == home / "semiseg_data"
  for name, where in (("folder", {"root": "~/mine"}), ("toy_scenes", {"data_dir": "~/mine"})):
    with pytest.raises(FileNotFoundError, match=f"{home}/mine"):
      open_dataset(name, **where)
  (home / "run").mkdir()
  assert checkpoint.is_whole("~/run") and not checkpoint.is_whole("~/weights.pth")
  (home / "weights.pth").touch()
  assert hub.fetch("~/weights.pth") == home / "weights.pth"
  with pytest.raises(FileNotFoundError, match=f"no trained network in {home}/run"):
    checkpoint.trained_network("~/run")
  assert __main__.main(["check", "~/mine"]) == 1
  assert f"check: {home}/mine is not a directory" in capsys.readouterr().err


def test_an_unknown_home_is_a_path_that_is_not_there(capsys):
  assert __main__.main(["check", "~no_such_user/mine"]) == 1
  assert capsys.readouterr().err.startswith("check: ~no_such_user/mine is not a directory")


@pytest.mark.parametrize(
  ("error", "line"),
  [
    (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b: Permission denied"),
    (OSError(errno.EXDEV, "Invalid link", "/a", None, "/b"), "/a -> /b: Invalid link"),
    (FULL, "runs/x: No space left on device"),
    (FileNotFoundError("train first"), "train first"),
    (ConnectionError("hub.example is away"), "hub.example is away"),
  ],
)
def test_a_line_names_the_file(error, line):
  with pytest.raises(OSError) as caught, naming("runs/x"):
    raise type(error)(*error.args) if error is FULL else error
  assert in_one_line(caught.value) == line


def test_launch_names_its_directory(tmp_path, monkeypatch, capsys):
  def full(*args):
    raise OSError(errno.ENOSPC, "No space left on device")

  for mode in ("train", "evaluate"):
    monkeypatch.setattr(run, mode, full)
    monkeypatch.setattr(run, "domains", lambda config: ())
    assert launched(CONFIG, f"--workdir={tmp_path}", f"--mode={mode}") == 1
    assert capsys.readouterr().err == f"launch.py: {tmp_path}: No space left on device\n"


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300])
def test_paths_that_cannot_be(name, tmp_path, capsys):
  (tmp_path / "file").touch()
  path = tmp_path / name
  commands = {
    "check": lambda: __main__.main(["check", str(path)]),
    "convert": lambda: __main__.main(["convert", f"{path}/x"]),
    "launch.py": lambda: launched(f"--workdir={path}", "--mode=predict", "--images=x"),
    str(tmp_path): lambda: prepare.main(["toy_scenes", f"--data_dir={path}"]),
  }
  for start, command in commands.items():
    assert command() == 1
    said = capsys.readouterr().err
    assert said.startswith(start) and str(path) in said and said.count("\n") == 1


@pytest.mark.parametrize("flag", ["num_processes=0", "process_id=-1", "peer_timeout=0", "nosuch=1"])
def test_a_wrong_flag_is_one_line(flag, capsys):
  with pytest.raises(flags.Error) as caught:
    launched(CONFIG, f"--{flag}")
  assert flag.partition("=")[0] in str(caught.value)


def test_parse_or_exit_says_one_line(monkeypatch):
  def fails(argv):
    raise flags.IllegalFlagValueError("flag --x=1:\n  no")

  monkeypatch.setattr(command_flags.flags, "FLAGS", fails)
  with pytest.raises(SystemExit, match=r"^launch\.py: flag --x=1: no; --help lists all flags$"):
    command_flags.parse_or_exit(["/here/launch.py", "--x=1"])
