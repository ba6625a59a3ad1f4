"""ResNet trunks (He et al. 2016) with torchvision's layout and names, at any output stride."""

import dataclasses
from typing import NamedTuple

import jax
from flax import nnx

from semiseg_jax.fields import require
from semiseg_jax.models.layers import (
  Computation,
  Init,
  Make,
  Sequential,
  he_normal_fan_out,
  max_pool,
  normal,
)


class Layout(NamedTuple):
  """What ResNets for segmentation disagree about; the defaults are torchvision's.

  stride_in_1x1: a bottleneck's stride is in its first 1x1 instead of its 3x3 (as in Caffe's
  weights). dilate_first: the first block of a stage that gave up its stride is dilated like the
  others instead of half as much. ceil_pool: the stem's max-pool rounds the size up (n/2 + 1 of an
  even n).
  """

  stride_in_1x1: bool = False
  dilate_first: bool = False
  ceil_pool: bool = False


TORCHVISION = Layout()


class Style(NamedTuple):
  """What an original does its own way with its trunk and its other layers.

  layout: of the trunk. trunk_init and init: of the kernels in the trunk and elsewhere; PyTorch's
  default without one. train_norms: whether scales and biases of the trunk's BatchNorms are trained.
  norm_bias: initial biases of the others.
  """

  layout: Layout = TORCHVISION
  trunk_init: Init = he_normal_fan_out
  init: Init | None = None
  train_norms: bool = True
  norm_bias: float = 0.0


PLAIN = Style()
MEMORY_BANK = Style(Layout(dilate_first=True), normal(0.01), normal(0.01), train_norms=False)


class BasicBlock(nnx.Module):
  """Two 3x3 convolutions; the first may have the stride."""

  expansion = 1

  def __init__(
    self,
    channels: int,
    width: int,
    stride: int,
    dilations: tuple[int, int],
    layout: Layout,
    make: Make,
  ):
    first, rest = dilations
    self.conv1 = make.conv(channels, width, 3, stride=stride, padding=first, dilation=first)
    self.bn1 = make.norm(width)
    self.conv2 = make.conv(width, width, 3, padding=rest, dilation=rest)
    self.bn2 = make.norm(width)
    self.downsample = _downsample(channels, width, stride, make)

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    y = nnx.relu(self.bn1(self.conv1(x), train))
    y = self.bn2(self.conv2(y), train)
    return nnx.relu(y + (x if self.downsample is None else self.downsample(x, train)))


class Bottleneck(nnx.Module):
  """1x1, 3x3, 1x1 convolutions; the 3x3, or by the layout the first 1x1, may have the stride."""

  expansion = 4

  def __init__(
    self,
    channels: int,
    width: int,
    stride: int,
    dilations: tuple[int, int],
    layout: Layout,
    make: Make,
  ):
    first, _ = dilations
    strides = (stride, 1) if layout.stride_in_1x1 else (1, stride)
    self.conv1 = make.conv(channels, width, 1, stride=strides[0])
    self.bn1 = make.norm(width)
    self.conv2 = make.conv(width, width, 3, stride=strides[1], padding=first, dilation=first)
    self.bn2 = make.norm(width)
    self.conv3 = make.conv(width, 4 * width, 1)
    self.bn3 = make.norm(4 * width)
    self.downsample = _downsample(channels, 4 * width, stride, make)

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    y = nnx.relu(self.bn1(self.conv1(x), train))
    y = nnx.relu(self.bn2(self.conv2(y), train))
    y = self.bn3(self.conv3(y), train)
    return nnx.relu(y + (x if self.downsample is None else self.downsample(x, train)))


def _downsample(channels: int, out_channels: int, stride: int, make: Make) -> Sequential | None:
  if stride == 1 and channels == out_channels:
    return None
  return Sequential([make.conv(channels, out_channels, 1, stride=stride), make.norm(out_channels)])


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
  With layout.dilate_first the first one has twice that too. channels: of each stage's output.
  """

  def __init__(
    self, name: str, width: int, output_stride: int, layout: Layout, make: Make, remat: str
  ):
    block, depths = BACKBONES[name]
    self.conv1 = make.conv(3, width, 7, stride=2, padding=3)
    self.bn1 = make.norm(width)
    channels, stride, dilation = [width], 4, 1
    for stage, depth in enumerate(depths):
      wanted = 1 if stage == 0 else 2
      used = wanted if stride * wanted <= output_stride else 1
      rest = dilation * wanted // used
      dilations = (rest if layout.dilate_first else dilation, rest)
      stride, dilation = stride * used, rest
      args = (block, channels[-1], width << stage, used, dilations, depth, layout, make)
      setattr(self, f"layer{stage + 1}", _stage(*args))
      channels.append((width << stage) * block.expansion)
    self.channels = tuple(channels[1:])
    self.remat, self.ceil_pool = remat, layout.ceil_pool

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

  def build(self, output_stride: int, style: Style, computation: Computation) -> ResNet:
    """Raises ValueError for an unknown remat."""
    require("config.model.remat", computation.remat, REMAT)
    make = computation.layers(style.trunk_init, style.train_norms)
    return ResNet(self.name, self.width, output_stride, style.layout, make, computation.remat)


RESNET101 = Trunk()


def _stage(
  block: type[nnx.Module],
  channels: int,
  width: int,
  stride: int,
  dilations: tuple[int, int],
  depth: int,
  layout: Layout,
  make: Make,
) -> nnx.List:
  first = block(channels, width, stride, dilations, layout, make)
  rest = (dilations[1],) * 2
  other = lambda: block(width * block.expansion, width, 1, rest, layout, make)
  return nnx.List([first, *(other() for _ in range(depth - 1))])
