"""Devices, hosts and how arrays are laid over them."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Tree


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
  """One axis, "data", over all devices of all hosts (or over those given)."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


def check_divisible(mesh: Mesh, **batches: int) -> None:
  """ValueError if a global batch can't be shared out equally; names the nearest sizes that can."""
  count = mesh.size
  for name, size in batches.items():
    if size % count:
      below, above = size // count * count, -(-size // count) * count
      sizes = f"{below} or {above}" if below else f"{above}"
      raise ValueError(
        f"{name}={size} can't be divided among {count} devices: use {sizes}, or fewer devices"
      )


def replicate(tree: Tree, mesh: Mesh) -> Tree:
  """The same host arrays on every device of the mesh."""
  sharding = NamedSharding(mesh, P())
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
  )


def shard_batch(batch: Tree, mesh: Mesh, leading: int = 0) -> Tree:
  """Global arrays, rows over "data", from this host's rows; `leading` axes before the rows."""
  sharding = NamedSharding(mesh, P(*[None] * leading, DATA_AXIS))
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
