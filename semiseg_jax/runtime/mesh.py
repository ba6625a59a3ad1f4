"""Devices, hosts and how arrays are laid over them."""

import itertools
import math
from collections.abc import Mapping, Sequence

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
  return Mesh(np.asarray(_by_host(devices)), (DATA_AXIS,), (AxisType.Auto,))


def sharing_devices(batches: Sequence[int]) -> list[jax.Device]:
  """As many devices as can share out every one of the global batches equally.

  Every host gives equally many of its own. Raises ValueError if not even one of each host can.
  """
  hosts, most = jax.process_count(), math.gcd(*batches)
  count = next((n for n in range(jax.local_device_count(), 0, -1) if most % (n * hosts) == 0), 0)
  if not count:
    raise ValueError(
      f"batches of {', '.join(map(str, batches))} images can't be shared out among {hosts} hosts: "
      f"give multiples of {hosts}"
    )
  places = itertools.groupby(_by_host(jax.devices()), key=lambda device: device.process_index)
  return [device for _, own in places for device in itertools.islice(own, count)]


def _by_host(devices: list[jax.Device]) -> list[jax.Device]:
  return sorted(devices, key=lambda device: (device.process_index, device.id))


def idle_devices(mesh: Mesh, batches: Mapping[str, int]) -> str:
  """One line on the devices that are left out, and how to use all; "" if none is.

  batches: rows of the global ones, the labelled first, by what people call them.
  """
  there, unit = jax.device_count(), math.gcd(*batches.values())
  if mesh.size == there:
    return ""
  times = -(-unit // there) * there
  wanted = {name: rows // unit * times for name, rows in batches.items()}  # as small as it goes
  text = lambda batches: " + ".join(f"{rows} {name}" for name, rows in batches.items())
  return (
    f"{mesh.size} of {there} devices are used, as many as share out {text(batches)} images "
    f"equally; for all, give the config :batch={next(iter(wanted.values()))}, which makes it "
    f"{text(wanted)} (docs/scaling.md)"
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
