"""How processes know of each other; what happens between real ones is in tests/test_hosts.py."""

import jax
import pytest

from semiseg_jax.commands import run
from semiseg_jax.runtime import processes


@pytest.mark.parametrize(
  ("environment", "several"),
  [
    ({}, False),
    ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, False),
    ({"SLURM_NTASKS": "4"}, False),  # inside an allocation, but not started by srun
    ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}, True),
    ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, True),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ({"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2", "TPU_WORKER_ID": "1"}, True),
  ],
)
def test_who_was_started_together(environment, several):
  assert processes.in_cluster({**environment, "JAX_PLATFORMS": "cpu"}) is several


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (("host:1", None, None), "--num_processes, --process_id missing"),
    ((None, 2, 0), "--coordinator missing"),
    (("host:1", 2, 2), "--process_id=2 is not one of 0 to 1"),
    (("host", 2, 1), "should be HOST:PORT"),
  ],
)
def test_flags_that_do_not_fit_together(flags, message):
  with pytest.raises(ValueError, match=message), processes.joined(*flags):
    pass


def test_a_launcher_tells_what_the_flags_do_not(monkeypatch):
  monkeypatch.setenv("PMI_SIZE", "4")
  monkeypatch.setenv("PMI_RANK", "3")
  assert processes._given("host:1", None, None) == ("host:1", 4, 3)
  assert processes._given("host:1", 2, 1) == ("host:1", 2, 1)


def test_alone_there_is_nobody_to_wait_for(tiny_config):
  with processes.joined():
    processes.check_devices()
    processes.check_agreement(tiny_config("supervised"))
    processes.barrier("alone")


def test_a_cluster_without_a_coordinator_names_the_flag(monkeypatch):
  monkeypatch.setenv("PMI_SIZE", "2")
  monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: _raise("not defined"))
  with pytest.raises(ValueError, match=r"\(not defined\): give --coordinator"), processes.joined():
    pass


def _raise(text: str):
  raise ValueError(text)


def test_prediction_is_for_one_process(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(ValueError, match="start it on a single host"):
    run.predict(None, tmp_path, "pictures", None)
