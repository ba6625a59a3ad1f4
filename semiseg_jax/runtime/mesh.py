"""Devices, hosts and how arrays are laid over them."""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Tree


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
  """One axis, "data", over all devices of all hosts (or over those given).

  Devices of a host stand together, so that the rows of hosts, joined, are in the stream's order.
  """
  devices = jax.devices() if devices is None else devices
  devices = sorted(devices, key=lambda device: (device.process_index, device.id))
  return Mesh(np.asarray(devices), (DATA_AXIS,), (AxisType.Auto,))


def check_divisible(mesh: Mesh, **batches: int) -> None:
  """ValueError if global batches can't be shared out equally; names sizes and devices that can.

  batches: sizes by the name of their key in the config.
  """
  count, most = mesh.size, math.gcd(*batches.values())
  uneven = {name: size for name, size in batches.items() if size % count}
  if not uneven:
    return
  sizes = ", ".join(f"config.{name}={size}" for name, size in uneven.items())
  better = ", ".join(f"config.{name}={_multiples(size, count)}" for name, size in uneven.items())
  devices = f"a number of devices that divides {most}" if most > 1 else "a single device"
  raise ValueError(
    f"{sizes} can't be divided among {count} devices: use {better}, or run on {devices} "
    "(on GPUs by CUDA_VISIBLE_DEVICES)"
  )


def _multiples(size: int, count: int) -> str:
  """The multiples of count below and above size."""
  below = size // count * count
  return f"{below} or {below + count}" if below else str(count)


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
