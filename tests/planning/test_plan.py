"""Plans on this machine's own devices; on TPUs and GPUs where their compilers are installed."""

import importlib.util
import math
from collections import Counter

import jax
import pytest
from jax.sharding import PartitionSpec as P

from configs import city_reco, gta5_city_memory_bank, pascal_memory_bank, toy_memory_bank
from data.blank import blank_dataset
from semiseg_jax.commands import run
from semiseg_jax.planning import gpus, plan
from semiseg_jax.planning.kernels import Kernels
from semiseg_jax.planning.traffic import Collective
from semiseg_jax.runtime.mesh import make_mesh
from semiseg_jax.training.setup import build
from semiseg_jax.training.step import make_train_step
from semiseg_jax.training.streams import TrainStream

HAS_TPU_COMPILER = importlib.util.find_spec("libtpu") is not None
HAS_GPU_COMPILER = any(map(importlib.util.find_spec, gpus._PLUGINS))


def blank(config) -> list:
  return [
    blank_dataset(part.name, part.variant, (96, 128)) if part.name else None
    for part in (config.data, config.data.domain)
  ]


def tiny_run(tiny_config, method="supervised", devices=8, **values):
  batches = {"data.labeled_batch": devices, "data.unlabeled_batch": devices}
  config = tiny_config(method, **batches, **values)
  dataset, domain = blank(config)
  return build(config, dataset, domain, make_mesh(jax.devices()[:devices]))


def test_blank_data_says_what_the_files_would():
  dataset = blank_dataset("cityscapes", "half", (40, 60))
  assert dataset.info.num_classes == 19 and len(dataset.train) == 2975
  assert len(dataset.extra) == 19_998 and len(dataset.train.ids_of("dst_cbc/30_0")) == 100
  assert dataset.train[0]["image"].shape == (40, 60, 3)
  with pytest.raises(ValueError, match="no variant"):
    blank_dataset("cityscapes", "third", (40, 60))


@pytest.mark.parametrize(
  ("config", "labeled"),
  [
    (city_reco.get_config("labels=20"), 20),
    (pascal_memory_bank.get_config("labels=212,split=1"), 212),
    (gta5_city_memory_bank.get_config(), 100),
  ],
)
def test_full_configs_have_their_shapes_without_their_files(config, labeled):
  config.model.trunk.name, config.model.trunk.width = "resnet18", 4
  dataset, domain = blank(config)
  made = build(config, dataset, domain, make_mesh(jax.devices()[:1]))
  assert made.facts.labeled_images == labeled
  batch = plan.abstract_batch(made, scale=3)
  rows = 3 * config.data.labeled_batch
  assert batch["labeled"]["image"].shape == (rows, *config.data.crop, 3)
  assert set(batch) == {"labeled", "unlabeled", *(["domain"] if domain else [])}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_abstract_state_and_batch_are_those_of_a_run(tiny_config, accumulate):
  made = tiny_run(tiny_config, "memory_bank", **{"training.accumulate": accumulate})
  stream = TrainStream(made.config, made.streams)
  real = stream.next()
  stream.close()
  same = lambda a, b: a.shape == b.shape and a.dtype == b.dtype
  assert all(jax.tree.leaves(jax.tree.map(same, plan.abstract_batch(made), real)))
  bank = plan.abstract_state(made).method_state.bank.rows
  assert bank.sharding.spec == P(None, "data") and bank.shape[1] == 64


@pytest.mark.slow
def test_cost_is_what_xla_counts(tiny_config, monkeypatch):
  made = tiny_run(tiny_config)
  cost = plan.compiled(made, 1, None)
  state, batch = plan.abstract_state(made), plan.abstract_batch(made)
  program = make_train_step(made.method, made.optimizer, made.mesh).lower(state, batch).compile()
  memory = program.memory_analysis()
  assert cost.temporary == memory.temp_size_in_bytes > 0
  new = memory.output_size_in_bytes - memory.alias_size_in_bytes  # the state is donated
  assert cost.resident == memory.argument_size_in_bytes + new > 0
  assert cost.memory == cost.resident + cost.temporary + cost.program
  weights = sum(x.nbytes for x in jax.tree.leaves(made.start.variables.params))
  assert cost.traffic["all-reduce"].size > weights  # the gradients, and statistics
  assert cost.flops > 0
  twice = plan.compiled(made, 2, None)
  assert twice.temporary > cost.temporary
  monkeypatch.setattr(plan, "_KINDS", {"cpu": (0.5 * (cost.memory + twice.memory) / 2**30, 1)})
  assert plan.compiled(made, 1, None) and plan.compiled(made, 2, None) is None


def test_batches_are_raised_to_what_devices_can_share():
  config, said = gta5_city_memory_bank.get_config(), []
  plan.share_out(config, 4, said.append)
  assert (config.data.labeled_batch, config.data.domain.batch) == (20, 20)
  assert said[0].startswith("4 devices can't share out 5 labeled + ")
  assert ": planned with 20 labeled + " in said[0]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 21])
def test_largest_batch_is_found(limit):
  asked = []

  def cost_of(scale):
    asked.append(scale)
    return "fits" if scale <= limit else None

  assert plan.largest_scale(cost_of, lambda _: None) == limit
  assert len(asked) <= 2 * math.log2(limit + 1) + 2


def test_no_largest_batch_is_looked_for_where_the_batch_itself_does_not_fit(
  tiny_config, monkeypatch
):
  scales = []
  monkeypatch.setattr(plan, "devices_of", lambda topology: jax.devices())
  monkeypatch.setattr(plan, "compiled", lambda run, scale, options: scales.append(scale))
  config = tiny_config("supervised")
  made = plan.make_plan(config, blank(config)[0], "v5e:2x4", search=True, note=lambda _: None)
  assert made.cost is None and made.largest is None and scales == [1]
  text = plan.describe(made)
  assert "does not fit" in text and "largest" not in text


def test_words_and_figures():
  traffic = {"all-reduce": Collective(3, 2**21)}
  started = Kernels(Counter({"fusion Loop": 9}), Counter({"models/layers.py:3": 9}))
  cost = plan.Cost(2**30, 3 * 2**30, 2**29, 1.97e12, 0.02, traffic, started, 60.0)
  made = plan.Plan("v5e:2x4", 8, 1, "TPU v5 lite", (8, 16), cost, (32, 64))
  text = plan.describe(made)
  assert "4.50 of 16 GiB a device (28 %)" in text and "20.0 ms by XLA's own estimate" in text
  assert "at the peak of 197 TFLOP/s 10.0 ms" in text and "3 a step, 2.0 MiB" in text
  assert "32 labelled and 64 unlabelled images a step fit" in text
  on_gpus = plan.describe(made._replace(kind="NVIDIA H100 80GB HBM3"))
  assert "4.50 of 79.11 GiB a device (6 %)" in on_gpus and "TFLOP" not in on_gpus
  assert "kernels      9 a step; most at models/layers.py:3 9\n" in on_gpus
  none = plan.describe(made._replace(cost=cost._replace(estimate=-5.0)))
  assert "XLA gives none (optimal_seconds=-5)" in none
  assert "does not fit into 16 GiB" in plan.describe(made._replace(cost=None))


def test_without_a_topology(tiny_config):
  with pytest.raises(ValueError, match="needs --topology=NAME"):
    run.plan(tiny_config("supervised"), None, None, None)


@pytest.mark.skipif(HAS_TPU_COMPILER, reason="libtpu is installed")
def test_without_libtpu(tiny_config):
  config = tiny_config("supervised")
  with pytest.raises(ValueError, match=r'needs libtpu.*: pip install -e "\.\[tpu\]"'):
    run.plan(config, "v5e:2x4", *blank(config))


@pytest.mark.skipif(not HAS_TPU_COMPILER, reason="needs libtpu")
def test_plan_for_a_slice(tiny_config, capsys):
  config = toy_memory_bank.get_config()
  config.data.crop, config.model.trunk.width = (32, 32), 8
  made = run.plan(config, "v5e:2x2", *blank(config))
  assert made.kind == "TPU v5 lite" and made.devices == 4 and made.cost.memory < 2**30
  assert "v5e:2x2: 4 x TPU v5 lite" in capsys.readouterr().out
  with pytest.raises(ValueError, match="give a name such as"):
    run.plan(config, "v5e:7x9", *blank(config))


@pytest.mark.parametrize(
  ("topology", "devices"),
  [("h100", ("h100", 1, 1)), ("h200:8", ("h200", 1, 8)), ("a100:16x4", ("a100", 16, 4))],
)
def test_gpus_by_name(topology, devices):
  assert gpus.is_gpu(topology) and gpus.read_topology(topology) == devices


@pytest.mark.parametrize("topology", ["h100:", "h100:0", "h100:2x", "h100:2x0", "h100:2x2x2"])
def test_gpus_that_are_none(topology, tiny_config):
  config = tiny_config("supervised")
  with pytest.raises(ValueError, match=f"--topology={topology} should be like h100, h100:8"):
    run.plan(config, topology, *blank(config))


def test_a_card_as_xla_is_told_of_it():
  text = gpus.target(gpus.CARDS["h100"])
  for line in (  # as CUDA tells of one
    "core_count: 132", "shared_memory_per_core: 233472", "shared_memory_per_block_optin: 232448",
    "l2_cache_size: 52428800", "cuda_compute_capability { major: 9 minor: 0 }",
  ):  # fmt: skip
    assert f"  {line}\n" in text


@pytest.mark.skipif(HAS_GPU_COMPILER, reason="the CUDA plugin is installed")
def test_without_the_cuda_plugin(tiny_config):
  config = tiny_config("supervised")
  with pytest.raises(ValueError, match=r'needs JAX.s CUDA plugin.*: pip install -e "\.\[cuda\]"'):
    run.plan(config, "h100:8", *blank(config))


@pytest.mark.skipif(not HAS_GPU_COMPILER, reason="needs the CUDA plugin")
def test_plan_for_gpus(tiny_config, capsys):
  config = tiny_config("supervised")
  made = run.plan(config, "h100:2x2", *blank(config))
  assert made.kind == "NVIDIA H100 80GB HBM3" and (made.devices, made.hosts) == (4, 2)
  assert made.cost.memory < 2**30 and made.cost.kernels.total > 300
  assert made.cost.traffic["all-reduce"].size > 0
  out = capsys.readouterr().out
  assert "h100:2x2: 4 x NVIDIA H100 80GB HBM3 on 2 hosts" in out and "\nkernels " in out
