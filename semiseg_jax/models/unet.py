"""U-Net's encoder (Ronneberger et al. 2015) as pytorch-segmentation has it (`models/unet.py`)."""

import dataclasses
from typing import Annotated

import jax
from flax import nnx

from semiseg_jax.models.heads import conv_norm_relu
from semiseg_jax.models.layers import Maker, Sequential, max_pool
from semiseg_jax.models.network import Features
from semiseg_jax.models.trunk import Style, Trunk
from semiseg_jax.values import Range


def two_convs(channels: int, out_channels: int, make: Maker) -> Sequential:
  """3x3 twice; in between there are half as many channels as come out."""
  inner = out_channels // 2
  first = conv_norm_relu(make, channels, inner, 3)
  return Sequential([*first, *conv_norm_relu(make, inner, out_channels, 3)])


class UNetEncoder(nnx.Module):
  """Five stages at strides 1 to 16, whose outputs are taken behind the pooling."""

  def __init__(self, width: int, make: Maker):
    self.channels = tuple(width << stage for stage in range(5))
    self.start_conv = two_convs(3, width, make)
    for i, channels in enumerate(self.channels[:-1], start=1):
      setattr(self, f"down{i}", two_convs(channels, 2 * channels, make))

  def __call__(self, images: jax.Array, train: bool) -> Features:
    features = [self.start_conv(images, train)]
    for down in (self.down1, self.down2, self.down3, self.down4):
      features.append(max_pool(down(features[-1], train), 2, 2, ceil_mode=True))
    return tuple(features)


@dataclasses.dataclass(frozen=True)
class UNetTrunk(Trunk):
  """U-Net's encoder as a config describes it; nothing of it is recomputed (remat)."""

  name: str = "unet"
  width: Annotated[int, Range(2, 65_536)] = 64

  def build(self, output_stride: int, style: Style, make: Maker) -> UNetEncoder:
    return UNetEncoder(self.width, make._replace(init=style.trunk_init, norm_bias=0.0))
