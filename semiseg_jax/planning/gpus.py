"""GPUs that are not there, by XLA's compiler for them, which comes with JAX's CUDA plugin."""

import importlib.util
import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

# There is no GPU to try variants of a kernel on.
OPTIONS = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")


class Card(NamedTuple):
  """What the compiler wants to know, from the vendor's data sheets and CUDA's tables of compute
  capabilities: GiB that CUDA shows, peak dense bfloat16 TFLOP/s, GB/s and MiB of level-2 cache,
  multiprocessors with so many float32 lanes, and KiB of shared memory on each."""

  kind: str
  memory: float
  peak: float
  bandwidth: int
  cache: int
  cores: int
  lanes: int
  shared: int
  clock: float
  capability: tuple[int, int]


CARDS = {
  "a100": Card("NVIDIA A100-SXM4-80GB", 79.15, 312, 2039, 40, 108, 64, 164, 1.41, (8, 0)),
  "h100": Card("NVIDIA H100 80GB HBM3", 79.11, 989, 3352, 50, 132, 128, 228, 1.98, (9, 0)),
  "h200": Card("NVIDIA H200", 139.8, 989, 4800, 50, 132, 128, 228, 1.98, (9, 0)),
}
# Device kind -> (GiB of memory, peak bfloat16 TFLOP/s), as of TPUs.
KINDS = {card.kind: (card.memory, card.peak) for card in CARDS.values()}
_TOPOLOGY = re.compile(rf"({'|'.join(CARDS)})(?::(?:(\d+)x)?(\d+))?")


def is_gpu(topology: str) -> bool:
  """Whether the name is one of a card, whatever number of them."""
  return topology.partition(":")[0] in CARDS


def gpus(topology: str) -> list[jax.Device]:
  """The devices of "h100", "h100:8" on one host, or "h100:2x8", which is hosts x GPUs of each.

  Raises ValueError for another form, or without the plugin.
  """
  card, hosts, each = read_topology(topology)
  if not any(map(importlib.util.find_spec, _PLUGINS)):
    raise ValueError(
      f"--topology={topology} needs JAX's CUDA plugin, which compiles for GPUs and wants none "
      'itself: pip install -e ".[cuda]"'
    )
  jax.config.update("jax_platforms", "cpu")
  shape = f"1x{hosts}x{each}"
  try:
    description = topologies.get_topology_desc(
      platform="cuda", topology_name=shape, topology=shape, target_config=target(CARDS[card])
    )
  except Exception as error:
    raise ValueError(f"--topology={topology}: {str(error).splitlines()[0]}") from error
  return list(description.devices)


def read_topology(text: str) -> tuple[str, int, int]:
  """(card, hosts, GPUs of each) of "h100:2x8"; ValueError for what is none."""
  match = _TOPOLOGY.fullmatch(text)
  card, hosts, each = match.groups("1") if match else ("", 0, 0)
  if not int(hosts) * int(each):
    raise ValueError(f"--topology={text} should be like h100, h100:8 or h100:2x8, hosts x GPUs")
  return card, int(hosts), int(each)


def target(card: Card) -> str:
  """XLA's description of a card, a GpuTargetConfigProto as text."""
  major, minor = card.capability
  return f"""\
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {1024 * card.shared}
  threads_per_core_limit: 2048
  core_count: {card.cores}
  fpus_per_core: {card.lanes}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {card.bandwidth * 10**9}
  l2_cache_size: {card.cache * 2**20}
  clock_rate_ghz: {card.clock}
  device_memory_size: {int(card.memory * 2**30)}
  shared_memory_per_block_optin: {1024 * (card.shared - 1)}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
runtime_version {{ major: 12 minor: 8 }}
device_description_str: "{card.kind}"
"""
