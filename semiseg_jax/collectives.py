"""Reductions over the mesh axis that are the identity without one.

Losses, layers and augmentations take `axis_name=None | "data"`: None from a notebook or inside a
plain `jit`, "data" inside the mapped train step.
"""

from collections.abc import Callable
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


def pmax(x: Any, axis_name: str | None) -> Any:
  """Largest of the devices' values of a pytree; x itself without an axis."""
  return x if axis_name is None else lax.pmax(x, axis_name)


def all_gather(x: Any, axis_name: str | None) -> Any:
  """Every array [B,...] of a pytree with those of all devices, [N*B,...]; x without an axis."""
  return x if axis_name is None else lax.all_gather(x, axis_name, tiled=True)


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


def alike(*arrays: jax.Array, axis_name: str) -> tuple[jax.Array, ...]:
  """The arrays, typed as different between devices if one of them is: a written gradient has to
  have the type of what it is of."""
  return as_varying(arrays, axis_name) if any(varies(x, axis_name) for x in arrays) else arrays


def value_and_grad(loss: Callable, params: Any, *args: Any) -> tuple[jax.Array, Any, Any]:
  """(loss, aux, gradients) of loss(params, *args) -> (loss, aux) as this device's own.

  params must be typed as this device's own, and so is what comes back.
  """

  def own_loss(params: Any) -> tuple[jax.Array, Any]:
    value, aux = loss(params, *args)
    return as_varying(value, DATA_AXIS), aux

  (value, aux), grads = jax.value_and_grad(own_loss, has_aux=True)(params)
  return value, aux, grads


def cond(predicate: jax.Array, on_true: Callable, on_false: Callable, *operands: Any) -> Any:
  """`lax.cond` inside the mapped step, of branches that differ in what is equal on all devices."""
  typed = lambda branch: lambda *values: as_varying(branch(*values), DATA_AXIS)
  return lax.cond(predicate, typed(on_true), typed(on_false), *operands)
