"""`python -m semiseg_jax`: which commands there are."""

import pathlib
import subprocess
import sys

import pytest

from semiseg_jax import __main__ as program

NAMES = sorted(path.stem for path in pathlib.Path(program.__file__).parent.glob("commands/*.py"))


@pytest.mark.parametrize("argv", [["--help"], ["-h"]])
def test_help_lists_every_command(argv, capsys):
  assert program.main(argv) == 0
  printed = capsys.readouterr()
  assert printed.err == ""
  for name in program.COMMANDS:
    assert name in NAMES and f"python -m semiseg_jax {name} " in printed.out


@pytest.mark.parametrize("argv", [[], ["chekc", "DIR"], ["--chekc"]])
def test_without_a_command_they_are_listed(argv, capsys):
  assert program.main(argv) == 2
  printed = capsys.readouterr()
  assert printed.out == "" and "python -m semiseg_jax check DIR" in printed.err


@pytest.mark.parametrize("name", ["check", "convert"])
def test_every_command_has_a_help_of_its_own(name, capsys):
  with pytest.raises(SystemExit) as exit_:
    program.main([name, "--help"])
  assert exit_.value.code == 0
  assert f"usage: python -m semiseg_jax {name}" in capsys.readouterr().out


def test_arguments_and_exit_code_are_the_commands(tmp_path, capsys):
  assert program.main(["check", str(tmp_path / "nowhere")]) == 1
  assert "nowhere" in capsys.readouterr().err


def test_as_a_program():
  start = [sys.executable, "-m", "semiseg_jax"]
  done = subprocess.run(start, capture_output=True, text=True)
  assert done.returncode == 2 and "semiseg_jax inspect" in done.stderr
  done = subprocess.run([*start, "inspect", "--help"], capture_output=True, text=True, check=True)
  assert "semiseg_jax inspect --config=" in done.stdout and "--[no]workers" in done.stdout
