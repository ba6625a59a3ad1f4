"""Pyramid pooling (Zhao et al. 2017): what an image holds as a whole and in its parts."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export, lax

from semiseg_jax.models.heads import conv_norm_relu
from semiseg_jax.models.layers import Maker, Sequential, dropout
from semiseg_jax.models.network import Keys
from semiseg_jax.models.resize import resize_bilinear


class PyramidPooling(nnx.Module):
  """Means over grids of several sizes, each projected and resized, joined to what they are of.

  Source: pytorch-segmentation, `_PSPModule` of `models/pspnet.py` and `models/upernet.py`.
  """

  DROPOUT = 0.1

  def __init__(self, channels: int, dim: int, bins: Sequence[int], make: Maker):
    part = channels // len(bins)
    self.stages = nnx.List(
      [Sequential([MeanGrid(n), *conv_norm_relu(make, channels, part, 1)]) for n in bins]
    )
    self.bottleneck = Sequential(conv_norm_relu(make, channels + part * len(bins), dim, 3))

  def __call__(self, x: jax.Array, train: bool, keys: Keys = None) -> jax.Array:
    """x [B,h,w,C] -> [B,h,w,dim]; keys: [B] for the dropout of whole channels, None for none."""
    size = x.shape[1:3]
    parts = [resize_bilinear(stage(x, train), size, align_corners=True) for stage in self.stages]
    x = self.bottleneck(jnp.concatenate([x, *parts], axis=-1), train)
    return dropout(x, self.DROPOUT, keys, whole_channels=True)


@dataclasses.dataclass(frozen=True)
class MeanGrid:
  """Means over a grid of bins x bins parts, [B,H,W,C] -> [B,bins,bins,C], summed in float32.

  Parts overlap by a pixel where they don't divide a side, as PyTorch's adaptive pooling has them.
  A class, as two partial functions are never equal and networks made alike have to be.
  """

  bins: int

  def __call__(self, x: jax.Array) -> jax.Array:
    rows, columns = (_shares(n, self.bins) for n in x.shape[1:3])
    product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    y = product("bhwc,ih->biwc", x.astype(jnp.float32), rows)
    return product("biwc,jw->bijc", y, columns).astype(x.dtype)


def _shares(n: int, bins: int) -> np.ndarray | jax.Array:
  """float32 [bins, n]: the weight of each pixel in each part's mean; n may be a symbol."""
  xp = jnp if export.is_symbolic_dim(n) else np
  part, pixel = xp.arange(bins)[:, None], xp.arange(n)
  inside = (pixel >= part * n // bins) & (pixel < -(-(part + 1) * n // bins))
  return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
