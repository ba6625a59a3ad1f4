"""TPU slices that are not there, by libtpu, their compiler."""

import importlib.util
import os

import jax
from jax.experimental import topologies

# Device kind -> (GiB of memory, peak bfloat16 TFLOP/s) of what JAX calls a device: a chip, but for
# v2 and v3 half a chip. From the vendor's pages on each generation.
KINDS = {
  "TPU v2": (8, 23),
  "TPU v3": (16, 61.5),
  "TPU v4": (32, 275),
  "TPU v5 lite": (16, 197),
  "TPU v5": (95, 459),
  "TPU v6 lite": (32, 918),
}


def tpus(topology: str) -> list[jax.Device]:
  """The devices of a slice such as "v5e:2x4"; ValueError without libtpu or for what it does not
  know."""
  if importlib.util.find_spec("libtpu") is None:
    raise ValueError(
      f'--topology={topology} needs libtpu, the TPU compiler: pip install -e ".[tpu]"'
    )
  jax.config.update("jax_platforms", "cpu")
  # or libtpu asks a machine that is no TPU VM who it is, and lets one process at a time load it
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", topology.partition(":")[0])
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  try:
    description = topologies.get_topology_desc(platform="tpu", topology_name=topology)
  except Exception as error:
    text = str(error).splitlines()[0]
    raise ValueError(
      f"--topology={topology}: {text}; give a name such as v5e:2x4 or v4:2x2x4, or h100:8 for GPUs"
    ) from error
  return list(description.devices)
