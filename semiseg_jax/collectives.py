"""Reductions over the mesh axis that are the identity without one.

Losses, layers and augmentations take `axis_name=None | "data"`: None from a notebook or inside a
plain `jit`, "data" inside the mapped train step.
"""

from typing import Any

import jax
from jax import lax

DATA_AXIS = "data"


def psum(x: Any, axis_name: str | None) -> Any:
  """Sum of a pytree over the mesh axis; x itself without one."""
  return x if axis_name is None else lax.psum(x, axis_name)


def pmean(x: Any, axis_name: str | None) -> Any:
  """Mean of a pytree over the mesh axis; x itself without one."""
  return x if axis_name is None else lax.pmean(x, axis_name)


def device_index(axis_name: str | None) -> jax.Array | int:
  """Position of this device along the axis; 0 without one."""
  return 0 if axis_name is None else lax.axis_index(axis_name)


def device_count(axis_name: str | None) -> int:
  """Number of devices along the axis, a Python int; 1 without one."""
  return 1 if axis_name is None else lax.axis_size(axis_name)


def varies(x: jax.Array, axis_name: str) -> bool:
  """Whether the type system says that x may differ between devices (False under `jax.pmap`)."""
  return axis_name in jax.typeof(x).manual_axis_type.varying


def as_varying(tree: Any, axis_name: str | None) -> Any:
  """Types every leaf as different between devices, so that its gradient stays a device's own."""
  if axis_name is None:
    return tree
  cast = lambda x: x if varies(x, axis_name) else lax.pcast(x, axis_name, to="varying")
  return jax.tree.map(cast, tree)
