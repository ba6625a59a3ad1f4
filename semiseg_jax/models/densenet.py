"""DenseNet trunks (Huang et al. 2017) with torchvision's names, at any output stride."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from semiseg_jax.models.layers import Maker, max_pool
from semiseg_jax.models.network import Features
from semiseg_jax.models.trunk import Style, Trunk
from semiseg_jax.values import Range

DENSENETS = {
  "densenet121": (6, 12, 24, 16),
  "densenet169": (6, 12, 32, 32),
  "densenet201": (6, 12, 48, 32),
}
WIDER = 4  # times as many channels between the two convolutions of a layer as come out of it


class DenseLayer(nnx.Module):
  """BatchNorm, ReLU, 1x1 and again with a 3x3; what comes out is joined to what went in."""

  def __init__(self, channels: int, growth: int, dilation: int, make: Maker):
    inner = WIDER * growth
    self.norm1, self.conv1 = make.norm(channels), make.conv(channels, inner, 1)
    self.norm2 = make.norm(inner)
    self.conv2 = make.conv(inner, growth, 3, padding=dilation, dilation=dilation)

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    y = self.conv1(nnx.relu(self.norm1(x, train)))
    y = self.conv2(nnx.relu(self.norm2(y, train)))
    return jnp.concatenate([x, y], axis=-1)


class DenseBlock(nnx.Module):
  """Layers, numbered from 1."""

  def __init__(self, channels: int, depth: int, growth: int, dilation: int, make: Maker):
    self.depth = depth
    for i in range(depth):
      layer = DenseLayer(channels + i * growth, growth, dilation, make)
      setattr(self, f"denselayer{i + 1}", layer)

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    for i in range(1, self.depth + 1):
      x = getattr(self, f"denselayer{i}")(x, train)
    return x


class Transition(nnx.Module):
  """BatchNorm, ReLU and a 1x1 to half the channels."""

  def __init__(self, channels: int, make: Maker):
    self.norm, self.conv = make.norm(channels), make.conv(channels, channels // 2, 1)

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    return self.conv(nnx.relu(self.norm(x, train)))


class DenseNet(nnx.Module):
  """Four blocks up to the last BatchNorm, with transitions between them.

  A transition past the output stride doesn't pool, and the blocks behind it are dilated. deep_stem:
  three 3x3 without padding instead of a 7x7, of which the last two are one layer. Features are the
  first two blocks' outputs, the third transition's and the last block's; channels: of them.
  Source of the dilated form: pytorch-segmentation, `models/pspnet.py`.
  """

  def __init__(self, name: str, width: int, output_stride: int, deep_stem: bool, make: Maker):
    growth, channels, self.is_deep = width // 2, width, deep_stem
    size, padding = (3, 0) if deep_stem else (7, 3)
    self.conv0 = make.conv(3, width, size, stride=2, padding=padding)
    self.norm0 = make.norm(width)
    if deep_stem:
      self.conv1, self.norm1 = make.conv(width, width, 3), make.norm(width)
    kept, dilation = [], 1
    self.pools = tuple(8 << i <= output_stride for i in range(3))  # of each transition
    for i, depth in enumerate(DENSENETS[name], start=1):
      setattr(self, f"block{i}", DenseBlock(channels, depth, growth, dilation, make))
      channels += depth * growth
      if i in (1, 2, 4):
        kept.append(channels)
      if i < 4:
        setattr(self, f"transition{i}", Transition(channels, make))
        channels //= 2
        dilation *= 1 if self.pools[i - 1] else 2
      if i == 3:
        kept.append(channels)
    self.channels = tuple(kept)

  def __call__(self, images: jax.Array, train: bool) -> Features:
    x = nnx.relu(self.norm0(self.conv0(images), train))
    for _ in range(2 if self.is_deep else 0):
      x = nnx.relu(self.norm1(self.conv1(x), train))
    x = max_pool(x, 3, 2, padding=1)
    first = self.block1(x, train)
    second = self.block2(self.passed(1, first, train), train)
    third = self.transition3(self.block3(self.passed(2, second, train), train), train)
    return first, second, third, self.block4(self.pooled(3, third), train)

  def passed(self, i: int, x: jax.Array, train: bool) -> jax.Array:
    """Through the i-th transition and its pool."""
    return self.pooled(i, getattr(self, f"transition{i}")(x, train))

  def pooled(self, i: int, x: jax.Array) -> jax.Array:
    """Means of 2x2 pixels behind the i-th transition, where it pools."""
    return nnx.avg_pool(x, (2, 2), (2, 2)) if self.pools[i - 1] else x


@dataclasses.dataclass(frozen=True)
class DenseNetTrunk(Trunk):
  """A DenseNet as a config describes it; nothing is recomputed (remat).

  name: densenet121 | densenet169 | densenet201. width: channels of the stem, 64 in the paper; a
  layer adds half as many. deep_stem: the form that pytorch-segmentation trains from scratch.
  """

  name: str = "densenet121"
  width: Annotated[int, Range(2, 65_536)] = 64
  deep_stem: bool = False

  def build(self, output_stride: int, style: Style, make: Maker) -> DenseNet:
    make = make._replace(init=style.trunk_init, norm_bias=0.0)
    return DenseNet(self.name, self.width, output_stride, self.deep_stem, make)
