"""Commands in processes of their own, as a user runs them: started, awaited, looked into."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

from tests.environment import xla_flags
from tests.toy import prepared_scenes

ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
  "--config.data.crop=(32, 32)", "--config.model.trunk.width=4", "--config.model.decoder_dim=8",
  "--config.method.embedding_dim=8", "--config.method.num_queries=8",
  "--config.method.num_negatives=8", "--config.training.log_every=1",
  "--config.evaluation.panels=2",
)  # fmt: skip


def clean_environment(home: pathlib.Path, devices: int = 1) -> dict[str, str]:
  """That many devices, no leftovers of this process; data and compiled programs are shared."""
  kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "SEMISEG_DATA")}
  return kept | {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": xla_flags(devices),
    "SEMISEG_DATA": str(prepared_scenes()),
    "HOME": str(home),
  }


def start(environment, *args: str, out=subprocess.PIPE) -> subprocess.Popen:
  """out: where what it prints goes; a pipe has to be read before it is full."""
  return subprocess.Popen(
    [sys.executable, *args], cwd=ROOT, env=environment, text=True, stdout=out,
    stderr=subprocess.PIPE,
  )  # fmt: skip


def finish(process: subprocess.Popen, code: int = 0, seconds: int = 600) -> tuple[str, str]:
  out, err = process.communicate(timeout=seconds)
  assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err[-4000:]}"
  return out, err


def launch(workdir, *args: str, config: str = "configs/toy_reco.py") -> list[str]:
  return ["launch.py", f"--config={config}", f"--workdir={workdir}", *args]


def arrays(workdir: pathlib.Path, step: int) -> dict:
  """A checkpoint as numpy arrays, whatever devices wrote it."""
  path = workdir / "checkpoints" / str(step) / "arrays"
  with ocp.StandardCheckpointer() as checkpointer:
    stored = checkpointer.metadata(path).item_metadata.tree
    like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), stored)
    return checkpointer.restore(path, like)


def wait_for_step(process: subprocess.Popen, workdir: pathlib.Path, step: int) -> None:
  metrics = workdir / "metrics.jsonl"
  while process.poll() is None:
    if metrics.exists() and f'{{"step": {step}, ' in metrics.read_text():
      return
    time.sleep(0.02)
  raise AssertionError(f"ended before step {step}: {process.communicate()[1][-4000:]}")


def wait_for_checkpoint(process: subprocess.Popen, workdir: pathlib.Path) -> None:
  """Until the first one is whole: it is written beside the training, which goes on."""
  while process.poll() is None:
    if any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*")):
      return
    time.sleep(0.02)
  raise AssertionError(f"ended without a checkpoint: {process.communicate()[1][-4000:]}")


def free_port() -> int:
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


def start_together(environments, *args: str, each=lambda index: []) -> list[subprocess.Popen]:
  """A process of one run in every environment; each: further arguments of one."""
  together = [f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={len(environments)}"]
  return [
    start(environment, *args, *together, f"--process_id={index}", *each(index))
    for index, environment in enumerate(environments)
  ]


def rows(workdir: pathlib.Path, kind: str) -> list[dict]:
  """The lines of metrics.jsonl of a kind."""
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return [line for line in lines if line["kind"] == kind]
