"""Several real processes on this machine as one run, started as a user starts them."""

import json
import shutil
import signal
import time

import numpy as np
import pytest

from tests import worker
from tests.compare import assert_same, assert_same_bits
from tests.processes import (
  SMALL,
  arrays,
  clean_environment,
  finish,
  free_port,
  launch,
  rows,
  start,
  start_together,
  wait_for_checkpoint,
  wait_for_step,
)

NETWORK = [option for option in SMALL if ".method." not in option]
RUN = ["--config.training.steps=12", "--config.training.checkpoint_every=2",
       "--config.evaluation.every=6", "--config.evaluation.batch=8",
       "--peer_timeout=20"]  # fmt: skip
METHODS = {
  "supervised": [],
  "reco": [option for option in SMALL if ".method." in option],
  "memory_bank": [  # everything has begun after two steps
    "--config.method.ramp_steps=1", "--config.method.bank_lead=1", "--config.method.head_dim=8",
    "--config.method.threshold=0.1", "--config.method.memory_per_class=16",
    "--config.training.reload_best_after=6", "--config.training.refresh_batch_stats=2",
  ],
}  # fmt: skip


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
  """By the number of devices that a process has."""
  home = tmp_path_factory.mktemp("home")
  return {devices: clean_environment(home, devices) for devices in (1, 2, 4, 8)}


def command(method: str, workdir, *args: str) -> list[str]:
  options = [*NETWORK, *METHODS[method], *RUN, *args]
  return launch(workdir, *options, config=f"configs/toy_{method}.py")


def finish_all(processes, code: int = 0) -> list[tuple[str, str]]:
  return [finish(process, code) for process in processes]


def assert_same_run(several, one, processes):
  """The loss and gradient at the start and, of two processes, everything at the end.

  Two numbers have one sum. More are added in another order by several processes, and a network with
  so few values lets such differences grow from the second step on (1e-7 of its loss and 1e-3 of its
  gradient were seen): `test_every_method_by_several_processes` has four steps of another.
  """
  pairs = list(zip(rows(several, "train"), rows(one, "train"), strict=True))
  for ours, theirs in pairs[:1] if processes > 2 else pairs:
    for key in ("loss", "gradient_norm"):
      assert ours[key] == pytest.approx(theirs[key], rel=1e-4)
  results = [json.loads((path / "result.json").read_text()) for path in (several, one)]
  assert results[0]["status"] == "finished"
  assert len(rows(several, "eval")) == len(rows(one, "eval")) == 2
  if processes == 2:
    assert_same(arrays(several, 12), arrays(one, 12))
    assert results[0]["best"] == pytest.approx(results[1]["best"])
    assert results[0]["last"]["miou_present"] == pytest.approx(results[1]["last"]["miou_present"])


@pytest.mark.slow
@pytest.mark.parametrize(
  ("processes", "methods"), [(2, list(worker.METHODS)), (4, ["reco", "memory_bank"])]
)
def test_every_method_by_several_processes(processes, methods, environments, tmp_path):
  """Steps, checkpoints there and back, and evaluation, with a tiny network."""
  work = ["-m", "tests.worker", "--methods", *methods, "--directory"]
  finish(start(environments[processes], *work, str(tmp_path / "one")))
  finish_all(start_together([environments[1]] * processes, *work, str(tmp_path / "several")))
  for method in methods:
    one, several = tmp_path / "one" / method, tmp_path / "several" / method
    assert_same(arrays(several, 4), arrays(one, 4))
    counts = [json.loads((path / "counts.json").read_text()) for path in (several, one)]
    np.testing.assert_allclose(counts[0]["confusion"], counts[1]["confusion"], atol=2)
    assert np.sum(counts[0]["confusion"]) == np.sum(counts[1]["confusion"]) > 0
    assert counts[0]["loss_sum"] == pytest.approx(counts[1]["loss_sum"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "processes"), [("supervised", 4), ("memory_bank", 2)])
def test_several_processes_equal_one(method, processes, environments, tmp_path):
  """The command itself: one gets SIGTERM on the way; the same again goes on, and evaluates."""
  one, several = tmp_path / "one", tmp_path / "several"
  finish(start(environments[processes], *command(method, one)))

  started = start_together([environments[1]] * processes, *command(method, several))
  wait_for_step(started[0], several, 3)
  started[-1].send_signal(signal.SIGTERM)
  finish_all(started, code=75)
  stopped = json.loads((several / "result.json").read_text())
  assert stopped["status"] == "interrupted" and 3 <= stopped["step"] < 12
  (out, _), *others = finish_all(
    start_together([environments[1]] * processes, *command(method, several))
  )
  assert f"resuming at step {stopped['step']}" in out and f"{processes} x cpu" in out
  assert "mIoU" in out and not any("mIoU" in out for out, _ in others)  # one speaks for all
  assert_same_run(several, one, processes)

  evaluate = command(method, several, "--mode=evaluate")
  finish_all(start_together([environments[1]] * processes, *evaluate))
  found = json.loads((several / "evaluation.json").read_text())
  best = json.loads((several / "result.json").read_text())["best"]
  assert found["miou_present"] == pytest.approx(best["score"], abs=1e-6)
  finish(start(environments[1], *evaluate))  # one device reads what several have written
  alone = json.loads((several / "evaluation.json").read_text())
  assert alone["miou_present"] == pytest.approx(best["score"], abs=1e-4)


@pytest.mark.slow  # three starts of two processes
def test_killed_process_is_named_and_the_rerun_is_bit_identical(environments, tmp_path):
  unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
  finish_all(start_together([environments[1]] * 2, *command("supervised", unbroken)))

  started = start_together([environments[1]] * 2, *command("supervised", killed))
  wait_for_step(started[0], killed, 3)
  wait_for_checkpoint(started[0], killed)
  started[1].kill()
  started[1].communicate()
  _, err = finish(started[0], code=75)
  assert "process 1 (on " in err and "is gone" in err
  (out, _), _ = finish_all(start_together([environments[1]] * 2, *command("supervised", killed)))
  assert "resuming at step" in out
  assert_same_bits(arrays(killed, 12), arrays(unbroken, 12))
  results = [json.loads((path / "result.json").read_text()) for path in (killed, unbroken)]
  assert results[0] == results[1]


@pytest.mark.slow
def test_stopped_on_8_devices_goes_on_on_2_and_on_16(environments, tmp_path):
  work = lambda name, steps: [
    "-m", "tests.worker", "--directory", str(tmp_path / name), f"--steps={steps}", "--methods",
    "reco", "memory_bank",
  ]  # fmt: skip
  finish(start(environments[8], *work("unbroken", 5)))
  finish(start(environments[8], *work("stopped", 2)))
  for name, later in (("fewer", [environments[2]]), ("more", [environments[4]] * 4)):
    shutil.copytree(tmp_path / "stopped", tmp_path / name)
    finish_all(start_together(later, *work(name, 5)))
    for method in ("reco", "memory_bank"):
      ours, theirs = (arrays(tmp_path / n / method, 5) for n in (name, "unbroken"))
      bank = ours["method_state"] and ours["method_state"]["bank"]
      assert not bank or bank["count"].any()
      assert_same(ours, theirs)


def test_processes_compare_their_configs(environments):
  each = lambda index: [f"--temperature={(0.5, 0.3)[index]}"]
  started = start_together([environments[1]] * 2, "-m", "tests.agreement", each=each)
  for _, err in finish_all(started, code=1):
    assert "method.temperature: 0.5 on process 0, 0.3 there" in err


@pytest.mark.slow  # the same by the command itself
def test_different_configs_are_told_apart(environments, tmp_path):
  other = lambda index: ["--config.method.temperature=0.3"] if index else []
  started = start_together([environments[1]] * 2, *command("reco", tmp_path), each=other)
  for _, err in finish_all(started, code=1):
    assert "method.temperature: 0.5 on process 0, 0.3 there" in err and "Traceback" not in err


@pytest.mark.slow
def test_unequal_devices_are_refused(environments, tmp_path):
  unequal = [environments[1], environments[2]]
  for _, err in finish_all(start_together(unequal, *command("reco", tmp_path)), code=1):
    assert "same number of devices; there are process 0: 1, process 1: 2" in err


@pytest.mark.slow
def test_missing_process_ends_the_wait(environments, tmp_path):
  late = ["--num_processes=2", "--peer_timeout=4"]
  for index, message in ((0, "not all of them came"), (1, "nothing listens at 127.0.0.1:9")):
    where = "127.0.0.1:9" if index else f"127.0.0.1:{free_port()}"
    args = [*command("reco", tmp_path), *late, f"--coordinator={where}", f"--process_id={index}"]
    _, err = finish(start(environments[1], *args), code=75)
    assert f"process {index} of 2 waited 4 s for the others; {message}" in err


ROUNDS = [
  *NETWORK, "--config.training.steps=6", "--config.rounds.first.training.steps=4",
  "--config.training.checkpoint_every=2", "--config.evaluation.every=3",
  "--config.rounds.count=1", "--config.rounds.labels.chunk=10", "--peer_timeout=20",
]  # fmt: skip


def wait_for(process, path, seconds: float = 300) -> None:
  """Until something that fits the pattern is there."""
  end = time.monotonic() + seconds
  while not list(path.parent.glob(path.name)):
    assert process.poll() is None and time.monotonic() < end, f"no {path}"
    time.sleep(0.02)


@pytest.mark.slow  # several starts
@pytest.mark.parametrize("processes", [1, 2])
def test_rounds_killed_while_labelling_and_in_a_round(processes, environments, tmp_path):
  """Every rerun goes on, and all ends as if nothing had happened."""
  unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"

  def started(workdir):
    args = launch(workdir, *ROUNDS, config="configs/toy_dst_cbc.py")
    if processes == 1:
      return [start(environments[2], *args)]
    return start_together([environments[1]] * processes, *args)

  finish_all(started(unbroken))
  parts = (killed / "round_1_labels" / "*.part", killed / "round_1" / "checkpoints" / "2")
  for part in parts:
    running = started(killed)
    wait_for(running[0], part)
    for process in running:
      process.send_signal(signal.SIGKILL)
    for process in running:
      process.communicate()
    assert not (killed / "round_1" / "result.json").exists()
  finish_all(started(killed))
  assert_same_bits(arrays(killed / "round_1", 6), arrays(unbroken / "round_1", 6), "killed twice")
  labels = [
    {path.name: path.read_bytes() for path in (workdir / "round_1_labels").glob("chunk_*d")}
    for workdir in (killed, unbroken)
  ]
  assert labels[0] == labels[1] and len(labels[0]) == 6
  summaries = [json.loads((path / "summary.json").read_text()) for path in (killed, unbroken)]
  assert summaries[0] == summaries[1]
