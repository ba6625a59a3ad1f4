"""The benchmark of a training step."""

import re
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from semiseg_jax.planning import program
from tests.benchmarks import step
from tests.benchmarks.made_up import batch_of, config_of, run_of
from tests.benchmarks.profile import Group, events
from tests.benchmarks.step import Measured
from tests.processes import clean_environment, finish, start


def test_made_up_batches_have_what_a_step_wants():
  changes = ["data.crop=(40, 48)", "model.trunk.width=4", "training.accumulate=2"]
  run = run_of(config_of("configs/city_unimatch.py", None, [*changes, "model.trunk.name=vit_tiny"]))
  batch = batch_of(run)
  image, label = batch["labeled"]["image"], batch["labeled"]["label"]
  assert image.shape[0] == 2 and image.max() > 200
  assert set(range(19)) <= set(label.ravel().tolist())
  assert sorted(batch["labeled"]["position"].ravel().tolist()) == list(range(label.shape[1] * 2))


def test_changes_are_typed_as_in_the_config():
  config = config_of("toy_reco", "labels=4", ["data.crop=(32, 32)", "model.dtype=bfloat16"])
  assert config.data.crop == (32, 32) and config.model.dtype == "bfloat16"
  with pytest.raises((AttributeError, KeyError), match="crop"):
    config_of("toy_reco", None, ["data.corp=(32, 32)"])


def test_words_and_figures():
  text = "ENTRY %main (p: f32[]) -> f32[] {\n  ROOT %a = f32[] sort(%p)\n}\n"
  groups = {"models/layers.py:3": Group(2, 1.5), "?": Group(1, 0.25)}
  found = Measured(8, 2, 3, 20.0, 4e9, 2**29, 2**30, program.read(text), groups)
  described = step.describe(found, speed=1e12, top=1)
  assert "20.0 ms, 400.0 images/s" in described and ": 20 % of it" in described
  assert "0.50 GiB by XLA's count, at most 1.00 GiB in use" in described
  assert "1 in the program: 1 sort" in described and "1.8 ms in 3 kernels" in described
  assert described.endswith("1.50       2  models/layers.py:3")
  row = step.row("toy", found, 1e12, jnp.bfloat16)
  assert row.startswith("| toy | 8 | 20.0 ms | 400.0 | 20 % | 1.00 GiB | 1 | 3 s | cpu, bfloat16 |")


def event(name, nanoseconds, **stats):
  return SimpleNamespace(name=name, duration_ns=nanoseconds, stats=list(stats.items()))


def plane(name, **lines):
  lines = [SimpleNamespace(name=line, events=events) for line, events in lines.items()]
  return SimpleNamespace(name=name, lines=lines)


def test_kernels_of_a_gpu_and_operations_of_a_tpu_are_found_once():
  host = plane("/host:CPU", python=[event("PjitFunction", 9), event("add", 9, hlo_op="add")])
  kernel = event("void cutlass", 5, hlo_op="fusion.1", hlo_module="jit_step")
  others = [event("<?>", 3), event("sort", 2, hlo_op="sort", hlo_module="jit_other")]
  told_again = [event("fusion.1", 5, hlo_op="fusion.1", hlo_module="jit_step")]
  lines = {"Stream #7(Kernel)": [kernel, *others], "XLA Ops": told_again, "Steps": told_again}
  gpu = SimpleNamespace(planes=[host, plane("/device:GPU:0", **lines)])
  assert list(events(gpu, "jit_step")) == [("fusion.1", 5), ("", 3)]
  lines = {"XLA Ops": [event("%copy.2 = f32[2] copy(%a)", 4)], "Steps": [event("1", 9)]}
  tpu = SimpleNamespace(planes=[host, plane("/device:TPU:0", **lines)])
  assert list(events(tpu, "jit_step")) == [("copy.2", 4)]


@pytest.mark.slow
def test_a_whole_measurement(tmp_path):
  changes = ["data.crop=(32,32)", "model.trunk.width=4", "model.decoder_dim=8"]
  options = ["--config=toy_supervised", "--steps=1", *(f"--set={c}" for c in changes)]
  environment = clean_environment(tmp_path) | {"JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "10"}
  process = start(environment, "-m", "tests.benchmarks.step", *options)
  out, _ = finish(process, seconds=600)
  assert out.startswith("toy_supervised, data.crop=(32,32)")
  assert re.search(r"\d ms in [1-9]\d* kernels a step", out)
  assert re.search(r"models/\w+\.py:\d", out)
  cells = [cell.strip() for cell in out.splitlines()[-1].strip("|").split("|")]
  assert cells[1] == "8" and int(cells[6]) > 100 and cells[-1].startswith("jax ")
