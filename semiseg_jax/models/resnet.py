"""ResNet trunks (He et al. 2016) with torchvision's layout and names, at any output stride."""

from typing import NamedTuple

import jax
from flax import nnx

from semiseg_jax.models.layers import Make, Sequential, max_pool

OUTPUT_STRIDES = (8, 16, 32)


class Features(NamedTuple):
  """low [B,H/4,W/4,low_channels]: stage 1's; high [B,H/s,W/s,channels]: stage 4's, at stride s."""

  low: jax.Array
  high: jax.Array


class BasicBlock(nnx.Module):
  """Two 3x3 convolutions; the first may have the stride."""

  expansion = 1

  def __init__(
    self, channels: int, width: int, stride: int, dilations: tuple[int, int], make: Make
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
  """1x1, 3x3, 1x1 convolutions; the 3x3 may have the stride."""

  expansion = 4

  def __init__(
    self, channels: int, width: int, stride: int, dilations: tuple[int, int], make: Make
  ):
    first, _ = dilations
    self.conv1 = make.conv(channels, width, 1)
    self.bn1 = make.norm(width)
    self.conv2 = make.conv(width, width, 3, stride=stride, padding=first, dilation=first)
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
}


class ResNet(nnx.Module):
  """The stages of a ResNet up to the average pool.

  A stage past the output stride gives up its stride of 2: the convolution that had it keeps the
  dilation of the stage before, every later 3x3 has twice that (so the weights mean the same).
  width: channels of the stem, 64 in the paper; all stages scale with it.
  remat: recompute each block in the backward pass rather than keep its activations.
  """

  def __init__(self, name: str, output_stride: int, width: int, make: Make, remat: bool = False):
    if output_stride not in OUTPUT_STRIDES:
      raise ValueError(f"output_stride is {output_stride!r}: choose from {OUTPUT_STRIDES}")
    block, depths = BACKBONES[name]
    self.conv1 = make.conv(3, width, 7, stride=2, padding=3)
    self.bn1 = make.norm(width)
    channels, stride, dilation = width, 4, 1
    for stage, depth in enumerate(depths):
      wanted = 1 if stage == 0 else 2
      used = wanted if stride * wanted <= output_stride else 1
      dilations = (dilation, dilation * wanted // used)
      stride, dilation = stride * used, dilations[1]
      args = (block, channels, width << stage, used, dilations, depth, make)
      setattr(self, f"layer{stage + 1}", _stage(*args))
      channels = (width << stage) * block.expansion
    self.low_channels, self.channels = width * block.expansion, channels
    self.remat = remat

  def __call__(self, images: jax.Array, train: bool) -> Features:
    """images [B,H,W,3], normalised."""
    x = nnx.relu(self.bn1(self.conv1(images), train))
    x = low = self._run(self.layer1, max_pool(x, 3, 2, padding=1), train)
    for stage in (self.layer2, self.layer3, self.layer4):
      x = self._run(stage, x, train)
    return Features(low, x)

  def _run(self, stage: nnx.List, x: jax.Array, train: bool) -> jax.Array:
    run_block = lambda block, x: block(x, train)
    if self.remat:
      run_block = nnx.remat(run_block)
    for block in stage:
      x = run_block(block, x)
    return x


def _stage(
  block: type[nnx.Module],
  channels: int,
  width: int,
  stride: int,
  dilations: tuple[int, int],
  depth: int,
  make: Make,
) -> nnx.List:
  first = block(channels, width, stride, dilations, make)
  rest = (dilations[1],) * 2
  others = [block(width * block.expansion, width, 1, rest, make) for _ in range(depth - 1)]
  return nnx.List([first, *others])
