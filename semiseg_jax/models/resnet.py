"""ResNet trunks (He et al. 2016) with torchvision's layout and names, at any output stride."""

import dataclasses
from typing import NamedTuple

import jax
from flax import nnx

from semiseg_jax.fields import require
from semiseg_jax.models.layers import (
  Init,
  Maker,
  Sequential,
  he_normal_fan_out,
  max_pool,
  normal,
)


class Style(NamedTuple):
  """What an original does its own way; the defaults are torchvision's.

  stride_in_1x1: a bottleneck's stride is in its first 1x1 instead of its 3x3 (as in Caffe's
  weights). dilate_first: the first block of a stage that gave up its stride is dilated like the
  others instead of half as much. ceil_pool: the stem's max-pool rounds the size up (n/2 + 1 of an
  even n). trunk_init and init: of the kernels in the trunk and elsewhere; PyTorch's default without
  one. train_norms: whether scales and biases of the trunk's BatchNorms are trained. norm_bias:
  initial biases of the others.
  """

  stride_in_1x1: bool = False
  dilate_first: bool = False
  ceil_pool: bool = False
  trunk_init: Init = he_normal_fan_out
  init: Init | None = None
  train_norms: bool = True
  norm_bias: float = 0.0


MEMORY_BANK = Style(
  dilate_first=True, trunk_init=normal(0.01), init=normal(0.01), train_norms=False
)


class Block(nnx.Module):
  """Convolutions with BatchNorm and ReLU between them, and a way past them all.

  dilations: of the first 3x3 and of any later one.
  """

  expansion: int

  def __init__(
    self,
    channels: int,
    width: int,
    stride: int,
    dilations: tuple[int, int],
    style: Style,
    make: Maker,
  ):
    convs, inputs = self.convs(width, stride, dilations, style), channels
    for i, (size, outputs, step, dilation) in enumerate(convs, start=1):
      padding = dilation * (size // 2)
      conv = make.conv(inputs, outputs, size, stride=step, padding=padding, dilation=dilation)
      setattr(self, f"conv{i}", conv)
      setattr(self, f"bn{i}", make.norm(outputs))
      inputs = outputs
    self.depth = len(convs)
    if stride == 1 and channels == inputs:
      self.downsample = None
    else:
      shrunk = make.conv(channels, inputs, 1, stride=stride)
      self.downsample = Sequential([shrunk, make.norm(inputs)])

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    y = self.bn1(self.conv1(x), train)
    for i in range(2, self.depth + 1):
      y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(nnx.relu(y)), train)
    return nnx.relu(y + (x if self.downsample is None else self.downsample(x, train)))

  @staticmethod
  def convs(width: int, stride: int, dilations: tuple[int, int], style: Style) -> list[tuple]:
    """(size, output channels, stride, dilation) of each convolution."""
    raise NotImplementedError


class BasicBlock(Block):
  """Two 3x3 convolutions; the first may have the stride."""

  expansion = 1

  @staticmethod
  def convs(width, stride, dilations, style):
    return [(3, width, stride, dilations[0]), (3, width, 1, dilations[1])]


class Bottleneck(Block):
  """1x1, 3x3, 1x1 convolutions; the 3x3, or by the style the first 1x1, may have the stride."""

  expansion = 4

  @staticmethod
  def convs(width, stride, dilations, style):
    first, second = (stride, 1) if style.stride_in_1x1 else (1, stride)
    return [(1, width, first, 1), (3, width, second, dilations[0]), (1, 4 * width, 1, 1)]


BACKBONES = {
  "resnet18": (BasicBlock, (2, 2, 2, 2)),
  "resnet34": (BasicBlock, (3, 4, 6, 3)),
  "resnet50": (Bottleneck, (3, 4, 6, 3)),
  "resnet101": (Bottleneck, (3, 4, 23, 3)),
  "resnet152": (Bottleneck, (3, 8, 36, 3)),
}


# What may be kept of a block for the backward pass, by the name of what is recomputed.
REMAT = {
  "none": None,
  "elementwise": lambda operation, *_, **__: operation.name == "conv_general_dilated",
  "blocks": jax.checkpoint_policies.nothing_saveable,
}


def run_block(block: nnx.Module, x: jax.Array, train: bool, remat: str) -> jax.Array:
  """block(x, train); remat: a key of REMAT."""
  run = lambda block, x: block(x, train)
  return (run if remat == "none" else nnx.remat(run, policy=REMAT[remat]))(block, x)


class ResNet(nnx.Module):
  """The stages of a ResNet up to the average pool.

  A stage past the output stride gives up its stride of 2: the convolution that had it keeps the
  dilation of the stage before, every later 3x3 has twice that (so the weights mean the same).
  With style.dilate_first the first one has twice that too. channels: of each stage's output.
  """

  def __init__(self, name: str, width: int, output_stride: int, style: Style, make: Maker):
    make = make._replace(init=style.trunk_init, train_norms=style.train_norms, norm_bias=0.0)
    block, depths = BACKBONES[name]
    self.conv1 = make.conv(3, width, 7, stride=2, padding=3)
    self.bn1 = make.norm(width)
    channels, stride, dilation = [width], 4, 1
    for stage, depth in enumerate(depths):
      wanted = 1 if stage == 0 else 2
      used = wanted if stride * wanted <= output_stride else 1
      rest = dilation * wanted // used
      first = rest if style.dilate_first else dilation
      blocks = [block(channels[-1], width << stage, used, (first, rest), style, make)]
      channels.append((width << stage) * block.expansion)
      for _ in range(1, depth):
        blocks.append(block(channels[-1], width << stage, 1, (rest, rest), style, make))
      setattr(self, f"layer{stage + 1}", nnx.List(blocks))
      stride, dilation = stride * used, rest
    self.channels = tuple(channels[1:])
    self.remat, self.ceil_pool = make.remat, style.ceil_pool

  def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, ...]:
    """The four stages' outputs [B,H/s,W/s,C] for images [B,H,W,3], normalised."""
    x = nnx.relu(self.bn1(self.conv1(images), train))
    x = max_pool(x, 3, 2, padding=1, ceil_mode=self.ceil_pool)
    features = []
    for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
      for block in stage:
        x = run_block(block, x, train, self.remat)
      features.append(x)
    return tuple(features)


@dataclasses.dataclass(frozen=True)
class Trunk:
  """A ResNet as a config describes it.

  name: resnet18 | resnet34 | resnet50 | resnet101 | resnet152. width: channels of the stem, 64 in
  the paper; all stages scale with it.
  """

  name: str = "resnet101"
  width: int = 64

  def build(self, output_stride: int, style: Style, make: Maker) -> ResNet:
    """Raises ValueError for an unknown remat."""
    require("config.model.remat", make.remat, REMAT)
    return ResNet(self.name, self.width, output_stride, style, make)


RESNET101 = Trunk()
