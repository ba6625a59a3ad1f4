"""ResNet trunks (He et al. 2016) with torchvision's layout and names, at any output stride."""

import dataclasses

import jax
from flax import nnx

from semiseg_jax.models.layers import Maker, Sequential, max_pool, normal
from semiseg_jax.models.trunk import Style, Trunk, run_block

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


class ResNet(nnx.Module):
  """The stages of a ResNet up to the average pool.

  A stage past the output stride gives up its stride of 2: the convolution that had it keeps the
  dilation of the stage before, every later 3x3 has twice that (so the weights mean the same).
  With style.dilate_first the first one has twice that too. channels: of each stage's output.
  """

  def __init__(self, about: "ResNetTrunk", output_stride: int, style: Style, make: Maker):
    make = make._replace(init=style.trunk_init, train_norms=style.train_norms, norm_bias=0.0)
    (block, depths), width = BACKBONES[about.name], about.width
    if about.deep_stem:
      self.conv1, stem_width = _deep_stem(width, make), 2 * width
    else:
      self.conv1, stem_width = make.conv(3, width, 7, stride=2, padding=3), width
    self.bn1 = make.norm(stem_width)
    channels, stride, dilation = [stem_width], 4, 1
    for stage, depth in enumerate(depths):
      wanted = 1 if stage == 0 else 2
      used = wanted if stride * wanted <= output_stride else 1
      rest = dilation * wanted // used
      first = rest if style.dilate_first else dilation
      rates = [(first, rest)] + [(rest, rest)] * (depth - 1)
      if style.hybrid_dilation and rest > 1:
        rates = [(rate, rate) for rate in _hybrid(depth, rest // 2)]
      blocks = [block(channels[-1], width << stage, used, rates[0], style, make)]
      channels.append((width << stage) * block.expansion)
      for rate in rates[1:]:
        blocks.append(block(channels[-1], width << stage, 1, rate, style, make))
      setattr(self, f"layer{stage + 1}", nnx.List(blocks))
      stride, dilation = stride * used, rest
    self.channels = tuple(channels[1:])
    self.remat, self.ceil_pool = make.remat, style.ceil_pool

  def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, ...]:
    """The four stages' outputs [B,H/s,W/s,C] for images [B,H,W,3], normalised."""
    x = self.stem(images, train)
    return self.stages(max_pool(x, 3, 2, padding=1, ceil_mode=self.ceil_pool), train)

  def stem(self, images: jax.Array, train: bool) -> jax.Array:
    """Up to the max-pool, at stride 2."""
    is_deep = isinstance(self.conv1, Sequential)
    x = self.conv1(images, train) if is_deep else self.conv1(images)
    return nnx.relu(self.bn1(x, train))

  def stages(self, x: jax.Array, train: bool) -> tuple[jax.Array, ...]:
    """The four stages' outputs for what the max-pool gave."""
    features = []
    for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
      for block in stage:
        x = run_block(block, x, train, self.remat)
      features.append(x)
    return tuple(features)


def _hybrid(depth: int, level: int) -> list[int]:
  """Dilations of a stage's blocks: 1, 2, 3 in turn, at level 2 3, 4, 5; the rest, the middle one.

  Source: pytorch-segmentation, `models/duc_hdc.py`.
  """
  turn = [2 * level - 1, 2 * level, 2 * level + 1]
  return turn * (depth // 3) + [2 * level] * (depth % 3)


def _deep_stem(width: int, make: Maker) -> Sequential:
  first, last = (
    make.conv(3, width, 3, stride=2, padding=1),
    make.conv(width, 2 * width, 3, padding=1),
  )
  middle = make.conv(width, width, 3, padding=1)
  return Sequential([first, make.norm(width), nnx.relu, middle, make.norm(width), nnx.relu, last])


@dataclasses.dataclass(frozen=True)
class ResNetTrunk(Trunk):
  """A ResNet as a config describes it.

  name: resnet18 | resnet34 | resnet50 | resnet101 | resnet152. width: channels of the stem, 64 in
  the paper; all stages scale with it. deep_stem: three 3x3 instead of one 7x7 (PyTorch-Encoding's).
  """

  name: str = "resnet101"
  deep_stem: bool = False

  def build(self, output_stride: int, style: Style, make: Maker) -> ResNet:
    return ResNet(self, output_stride, style, make)


RESNET101 = ResNetTrunk()
