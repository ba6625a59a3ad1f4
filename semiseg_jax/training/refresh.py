"""New BatchNorm statistics for a trained network (Alonso et al. 2021, at the end of a run)."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from semiseg_jax.collectives import DATA_AXIS, pmean
from semiseg_jax.contract import Tree
from semiseg_jax.models.network import Network, Variables
from semiseg_jax.runtime.mesh import shard_batch


def refresh(
  network: Network, variables: Variables, batches: Iterable[np.ndarray], mesh: Mesh
) -> Variables:
  """The same parameters with statistics moved by passes in train mode.

  variables: replicated over the mesh; batches: this host's rows of uint8 images [B,H,W,3].
  """

  def per_device(params: Tree, batch_stats: Tree, images: jax.Array) -> Tree:
    _, batch_stats = network(params, batch_stats, images.astype(jnp.float32), train=True)
    return pmean(batch_stats, DATA_AXIS)

  specs = (P(), P(), P(DATA_AXIS))
  step = jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=specs, out_specs=P()))
  params, batch_stats = variables
  for images in batches:
    batch_stats = step(params, batch_stats, shard_batch(images, mesh))
  return Variables(params, batch_stats)
