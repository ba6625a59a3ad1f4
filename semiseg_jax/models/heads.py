"""What stands on a trunk: the parts of DeepLabV3+ (Chen et al. 2018) and DeepLabV2 (2017)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from semiseg_jax.models.layers import Maker, Sequential, dropout, normal


def conv_norm_relu(make: Maker, channels: int, out_channels: int, size: int, rate: int = 1) -> list:
  """Layers 0, 1 and 2 of most Sequentials; the size of the image is kept."""
  padding = rate * (size // 2)
  conv = make.conv(channels, out_channels, size, padding=padding, dilation=rate)
  return [conv, make.norm(out_channels), nnx.relu]


def global_pool(x: jax.Array) -> jax.Array:
  """Mean over the image, [B,H,W,C] -> [B,1,1,C], summed in float32."""
  return x.mean((1, 2), keepdims=True, dtype=jnp.float32).astype(x.dtype)


class ASPP(nnx.Module):
  """Atrous spatial pyramid pooling: 1x1, dilated 3x3 and pooled branches, projected to dim.

  In training the pooled branch's BatchNorm sees one value per image and channel.
  """

  def __init__(
    self, channels: int, dim: int, rates: Sequence[int], make: Maker, dropout_rate: float = 0.0
  ):
    self.convs = nnx.List(
      [
        Sequential(conv_norm_relu(make, channels, dim, 1)),
        *[Sequential(conv_norm_relu(make, channels, dim, 3, rate)) for rate in rates],
        Sequential([global_pool, *conv_norm_relu(make, channels, dim, 1)]),
      ]
    )
    self.project = Sequential(conv_norm_relu(make, dim * len(self.convs), dim, 1))
    self.dropout_rate = dropout_rate

  def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None = None) -> jax.Array:
    """x [B,h,w,C] -> [B,h,w,dim]; keys: [B] for dropout, None for none."""
    branches = [branch(x, train) for branch in self.convs]
    branches[-1] = jnp.broadcast_to(branches[-1], branches[0].shape)
    x = self.project(jnp.concatenate(branches, axis=-1), train)
    return dropout(x, self.dropout_rate, keys)


def linear_head(channels: int, out_channels: int | None, make: Maker) -> Sequential | None:
  """A 1x1 convolution with bias that works and returns in float32; None without out_channels."""
  if not out_channels:
    return None
  return Sequential([make.conv(channels, out_channels, 1, use_bias=True, dtype=jnp.float32)])


def pixel_head(channels: int, dim: int, out_channels: int | None, make: Maker) -> Sequential | None:
  """3x3, BatchNorm, ReLU and the convolution of `linear_head`; None without out_channels."""
  last = linear_head(dim, out_channels, make)
  return None if last is None else Sequential([*conv_norm_relu(make, channels, dim, 3), *last])


class SummedConvs(nnx.Module):
  """DeepLabV2's classifier: the sum of 3x3 convolutions of several dilations, in float32.

  branches: how many are added up; the others are kept as they are and never trained.
  """

  def __init__(
    self, channels: int, num_classes: int, rates: Sequence[int], branches: int, make: Maker
  ):
    def branch(rate: int, trained: bool):
      options = {"use_bias": True, "dtype": jnp.float32, "init": normal(0.01), "trained": trained}
      return make.conv(channels, num_classes, 3, padding=rate, dilation=rate, **options)

    self.conv2d_list = nnx.List([branch(rate, i < branches) for i, rate in enumerate(rates)])
    self.branches = branches

  def __call__(self, x: jax.Array) -> jax.Array:
    return sum(conv(x) for conv in list(self.conv2d_list)[: self.branches])
