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
  return place(tree, P(), mesh)


def place(tree: Tree, specs: Tree, mesh: Mesh) -> Tree:
  """Host arrays, equal on all hosts, laid over the mesh; specs: a tree of them, or its start."""

  def put(spec: P, part: Tree) -> Tree:
    # jit returns what it has of one device without axis names; otherwise it would compile again
    sharding = NamedSharding(mesh, spec if mesh.size > 1 else P())
    return jax.tree.map(lambda x: _put(np.asarray(x), sharding), part)

  return jax.tree.map(put, specs, tree, is_leaf=lambda x: isinstance(x, P))


def _put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
  return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def shard_batch(batch: Tree, mesh: Mesh, leading: int = 0) -> Tree:
  """Global arrays, rows over "data", from this host's rows; `leading` axes before the rows."""
  sharding = NamedSharding(mesh, P(*[None] * leading, DATA_AXIS))
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
