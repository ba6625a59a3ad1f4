"""Others may look at a working directory while a run writes there, and change nothing."""

import os
import subprocess
import time

import pytest

import semiseg_jax
from tests.compare import assert_same_bits
from tests.processes import SMALL, arrays, clean_environment, finish, launch, start
from tests.toy import make_folder

STEPS = int(os.environ.get("STEPS", 60))  # 300 were tried once


@pytest.mark.slow
def test_a_run_that_is_read_every_second_ends_in_the_same_bits(tmp_path):
  """It saves and evaluates at each step, so that checkpoints go while they are read."""
  environment = clean_environment(tmp_path)
  make_folder(tmp_path / "mine")
  options = [
    *SMALL, f"--config.data.root={tmp_path / 'mine'}", "--config.data.resize=36",
    "--config.data.labeled_batch=2", "--config.data.unlabeled_batch=2",
    "--config.evaluation.panels=0", f"--config.training.steps={STEPS}",
    "--config.training.checkpoint_every=1", "--config.evaluation.every=1",
  ]  # fmt: skip
  runs = {name: tmp_path / name for name in ("unread", "read")}
  command = lambda workdir: launch(workdir, *options, config="configs/folder_reco.py:size=small")
  finish(start(environment, *command(runs["unread"])))
  process, read = start(environment, *command(runs["read"]), out=subprocess.DEVNULL), 0
  while process.poll() is None:
    if any(path.name.isdecimal() for path in runs["read"].glob("best/*")):
      picture = tmp_path / "mine" / "images" / "0.png"
      assert semiseg_jax.load(runs["read"]).predict(picture).labels.shape == (40, 48)
      read += 1
    time.sleep(1)
  finish(process)
  assert read > 3
  assert_same_bits(arrays(runs["read"], STEPS), arrays(runs["unread"], STEPS), f"read {read} times")
