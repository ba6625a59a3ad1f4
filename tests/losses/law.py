"""A loss on N devices: its value and gradient as the train step sees them."""

from collections.abc import Callable

import jax
from jax import lax
from jax.sharding import PartitionSpec as P

from semiseg_jax.collectives import as_varying


def value_and_grad(loss: Callable, devices: int, weight: jax.Array, batch) -> tuple:
  """Mean over devices of loss(weight, batch) and its gradient; batch is split by rows.

  The gradient of each device's loss is taken for its own copy of the weight, then averaged.
  """
  mesh = jax.make_mesh(
    (devices,),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:devices],
  )

  def per_device(weight, batch):
    local = lambda weight: as_varying(loss(weight, batch), "data")
    value, grad = jax.value_and_grad(local)(as_varying(weight, "data"))
    return lax.pmean(value, "data"), lax.pmean(grad, "data")

  mapped = jax.shard_map(per_device, mesh=mesh, in_specs=(P(), P("data")), out_specs=(P(), P()))
  return jax.jit(mapped)(weight, batch)
