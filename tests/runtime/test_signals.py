"""What a first and a second Ctrl-C do."""

import os
import signal
import subprocess
import sys
import time

import pytest

from semiseg_jax.runtime.signals import StopSignal, ends_with, second_interrupt_ends
from semiseg_jax.runtime.workdir import kept

# The main thread waits for something else, as for the compiler.
BUSY = """import signal, sys, threading
from semiseg_jax.runtime.signals import StopSignal, ends_with, second_interrupt_ends
with second_interrupt_ends(lambda count: f"said {count}"), StopSignal():
  print("busy", flush=True)
  lock = threading.Lock()
  lock.acquire()
  lock.acquire()
"""


def test_the_second_ends_at_once(tmp_path):
  process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)  # fmt: skip
  assert process.stdout.readline() == "busy\n"
  process.send_signal(signal.SIGINT)
  while process.stderr.readline() != "said 1\n":
    pass
  assert process.poll() is None
  process.send_signal(signal.SIGINT)
  _, err = process.communicate(timeout=20)
  assert process.returncode == 130 and "said 2" in err and "Traceback" not in err


def test_the_first_asks_to_stop_and_is_answered_at_once(capfd):
  before = signal.getsignal(signal.SIGINT)
  with second_interrupt_ends("said {}".format), StopSignal() as stop:
    assert not stop.stops_after(1)
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.stops_after(2)
  assert "said 1" in capfd.readouterr().err
  assert signal.getsignal(signal.SIGINT) is before
  assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("seconds", [0, 20])
def test_an_end_that_was_lost_in_a_callback_comes_again(seconds, monkeypatch):
  class Gone:
    def __del__(self):
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
  done = []
  with pytest.raises(SystemExit, match="75"), ends_with(75):
    gone = Gone()
    del gone
    done.append(time.monotonic())
    time.sleep(seconds)
  assert time.monotonic() - done[0] < 10


def test_what_is_kept(tmp_path):
  assert kept(tmp_path) == "no checkpoint was saved yet"
  for name in ("checkpoints/9", "checkpoints/10", "checkpoints/11.orbax-checkpoint-tmp"):
    (tmp_path / name).mkdir(parents=True)
  assert kept(tmp_path).startswith(f"the checkpoint {tmp_path}/checkpoints/10 is kept")
  (tmp_path / "round_1" / "checkpoints" / "4").mkdir(parents=True)
  assert "round_1/checkpoints/4 is kept" in kept(tmp_path)
