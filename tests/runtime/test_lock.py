"""Two runs in one working directory: the second is refused, whatever became of an earlier one."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from semiseg_jax.runtime.lock import held

HOLD = """import fcntl, json, sys
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
file.truncate(0)
file.write(sys.argv[2])
file.flush()
print("held", flush=True)
sys.stdin.read()
"""
OTHER = {"host": "other", "process": 12, "since": "2026-01-02 03:04:05+00:00"}


@pytest.fixture
def holder(tmp_path):
  """A process with the lock of tmp_path, as another run has it."""
  started = [sys.executable, "-c", HOLD, str(tmp_path / "lock"), json.dumps(OTHER)]
  process = subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == "held\n"
  yield process
  process.kill()
  process.communicate()


def test_the_second_run_is_told_who_is_there(tmp_path, holder):
  message = r"in use by another run: process 12 on other, since 2026-01-02 03:04:05"
  with pytest.raises(ValueError, match=message), held(tmp_path):
    pass
  assert json.loads((tmp_path / "lock").read_text()) == OTHER
  holder.kill()
  holder.wait()
  with held(tmp_path):
    pass


def test_it_is_there_while_the_run_is(tmp_path):
  with held(tmp_path / "new"), held(tmp_path / "new" / "round_0"):
    own = json.loads((tmp_path / "new" / "lock").read_text())
    assert (own["process"], own["host"]) == (os.getpid(), socket.gethostname())
  assert not list(tmp_path.rglob("lock"))


@pytest.mark.parametrize("left", ["", "no json", "[1]", json.dumps({**OTHER, "process": "x"})])
def test_a_lock_left_by_a_dead_process_does_not_block(tmp_path, left):
  (tmp_path / "lock").write_text(left)
  with held(tmp_path):
    assert json.loads((tmp_path / "lock").read_text())["process"] == os.getpid()


def test_where_the_file_system_has_no_locks_it_is_said(tmp_path, monkeypatch, caplog):
  def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "lockf", refuse)
  here = {**OTHER, "host": socket.gethostname()}
  (tmp_path / "lock").write_text(json.dumps({**here, "process": os.getppid()}))
  with pytest.raises(ValueError, match=f"in use by another run: process {os.getppid()} on"):
    held(tmp_path).__enter__()
  (tmp_path / "lock").write_text(json.dumps({**here, "process": os.getpid()}))
  with held(tmp_path):  # left by a process of the same number
    pass
  caplog.clear()
  (tmp_path / "lock").write_text(json.dumps(OTHER))
  with held(tmp_path):
    assert "has no locks" in caplog.text and "the last to say so was process 12 on other" in (
      caplog.text
    )


def test_a_name_that_is_no_text_is_refused(tmp_path):
  with pytest.raises(ValueError, match="is no UTF-8"), held(tmp_path / os.fsdecode(b"run\xff")):
    pass


def test_nothing_is_made_for_an_address_of_another_kind(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with (
    pytest.raises(ValueError, match="must be a directory or gs://"),
    held(Path("s3:/bucket/run")),
  ):
    pass
  assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(OSError, match="file"), held(tmp_path / "file"):
    pass
