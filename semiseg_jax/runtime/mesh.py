"""Devices, hosts and how arrays are laid over them."""

import itertools
import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from semiseg_jax.backend import platform
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


def larger_batches(batches: Mapping[str, int], devices: int) -> dict[str, int]:
  """The next batches of the same proportion that so many devices share out equally."""
  unit = math.gcd(*batches.values())
  return {name: rows // unit * -(-unit // devices) * devices for name, rows in batches.items()}


def idle_devices(mesh: Mesh, batches: Mapping[str, int]) -> str:
  """One line on the devices that are left out, and how to use all; "" if none is.

  batches: rows of the global ones by their stream's name, such as "labeled".
  """
  there = jax.device_count()
  if mesh.size == there:
    return ""
  wanted = larger_batches(batches, there)
  return (
    f"{mesh.size} of {there} devices are used, as many as share out {listed(batches)} images "
    f"equally; for all, give the config :batch={wanted['labeled']}, which makes it "
    f"{listed(wanted)} (docs/scaling.md)"
  )


def listed(batches: Mapping[str, int]) -> str:
  """Such as "4 labeled + 4 unlabeled"."""
  return " + ".join(f"{rows} {name}" for name, rows in batches.items())


def replicate(tree: Tree, mesh: Mesh) -> Tree:
  """The same host arrays on every device of the mesh."""
  return place(tree, P(), mesh)


def place(tree: Tree, specs: Tree, mesh: Mesh) -> Tree:
  """Host arrays, equal on all hosts, laid over the mesh; specs: a tree of them, or its start."""

  def lay(x: np.ndarray, form: NamedSharding | Format) -> jax.Array:
    return jax.make_array_from_callback(x.shape, form, lambda index: x[index])

  tree = jax.tree.map(np.asarray, tree)
  return jax.tree.map(lay, tree, forms(tree, specs, mesh))


def forms(tree: Tree, specs: Tree, mesh: Mesh) -> Tree:
  """How `place` lays arrays, or their shapes, over the mesh and in the devices' memory."""

  def form(spec: P, part: Tree) -> Tree:
    # jit returns what it has of one device without axis names; otherwise it would compile again
    sharding = NamedSharding(mesh, spec if mesh.size > 1 else P())
    return jax.tree.map(lambda x: _in_memory(x, sharding), part)

  return jax.tree.map(form, specs, tree, is_leaf=lambda x: isinstance(x, P))


def _in_memory(x: jax.typing.ArrayLike, sharding: NamedSharding) -> NamedSharding | Format:
  """On GPUs a convolution's kernel HWIO lies as cuDNN reads and writes it, with O outermost.

  Otherwise each is turned in each pass, and the optimiser, to which gradients come turned, works on
  turned parameters, momenta and teachers: not in place, so that it copies all of them.
  """
  if platform() != "gpu" or x.ndim != 4:
    return sharding
  return Format(Layout(major_to_minor=(3, 0, 1, 2)), sharding)


def shard_batch(batch: Tree, mesh: Mesh, leading: int = 0) -> Tree:
  """Global arrays, rows over "data", from this host's rows; `leading` axes before the rows."""
  sharding = NamedSharding(mesh, P(*[None] * leading, DATA_AXIS))
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
