"""New BatchNorm statistics for a trained network (Alonso et al. 2021, at the end of a run)."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from semiseg_jax.collectives import DATA_AXIS, pmean
from semiseg_jax.contract import Batch, Tree
from semiseg_jax.models.network import Network, Variables


def make_refresh_step(forward: Network, mesh: Mesh) -> Callable[[Tree, Tree, jax.Array], Tree]:
  """The jitted step(params, batch_stats, images) -> batch_stats after a pass in train mode.

  images: uint8 [B,H,W,3], rows over "data".
  """

  def per_device(params: Tree, batch_stats: Tree, images: jax.Array) -> Tree:
    _, batch_stats = forward(params, batch_stats, images.astype(jnp.float32), train=True)
    return pmean(batch_stats, DATA_AXIS)

  specs = (P(), P(), P(DATA_AXIS))
  return jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=specs, out_specs=P()))


def refresh(
  step: Callable[[Tree, Tree, jax.Array], Tree],
  variables: Variables,
  batches: Iterable[Batch],
  put: Callable[[Batch], Batch],
) -> Variables:
  """The same parameters with statistics moved by every batch's images; put lays them over the
  mesh."""
  batch_stats = variables.batch_stats
  for batch in batches:
    images = put({"image": batch["image"]})["image"]
    batch_stats = step(variables.params, batch_stats, images)
  return Variables(variables.params, batch_stats)
