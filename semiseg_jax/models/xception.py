"""Xception trunks (Chollet 2017) as DeepLabV3+ has them: with more blocks and fewer strides."""

import dataclasses
import itertools

import jax
from flax import nnx

from semiseg_jax.fields import require
from semiseg_jax.models.layers import Maker, SeparableConv, Sequential, he_normal_fan_in
from semiseg_jax.models.network import Features
from semiseg_jax.models.trunk import Style, Trunk, run_block
from semiseg_jax.values import Channels, CountFrom0

FIRST_MIDDLE_BLOCK = 4


class Block(nnx.Module):
  """Three separable convolutions and a shortcut; the last one has the stride.

  grows_first: whether the first one has the new number of channels, else the second.
  """

  def __init__(
    self,
    channels: int,
    out_channels: int,
    make: Maker,
    stride: int = 1,
    dilation: int = 1,
    starts_with_relu: bool = True,
    grows_first: bool = True,
  ):
    changes = stride > 1 or channels != out_channels
    self.skip = make.conv(channels, out_channels, 1, stride=stride) if changes else None
    self.skipbn = make.norm(out_channels) if changes else None
    widths = [channels, out_channels if grows_first else channels, out_channels, out_channels]
    layers = []
    for i, used in enumerate((1, 1, stride)):
      conv = SeparableConv(widths[i], widths[i + 1], make, used, dilation)
      layers += [nnx.relu, conv, make.norm(widths[i + 1])]
    self.rep = Sequential(layers if starts_with_relu else layers[1:])
    self.starts_with_relu = starts_with_relu

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    if self.starts_with_relu:  # in place in the originals, so that the shortcut sees it too
      x = nnx.relu(x)
    y = self.rep(x, train)
    return y + (x if self.skip is None else self.skipbn(self.skip(x), train))


class Xception(nnx.Module):
  """Entry, middle and exit flow up to the average pool; middle_blocks: 8 in the paper.

  At output stride 8 block 3 has no stride and what follows is dilated twice as much.
  channels: of the four features.
  """

  def __init__(self, width: int, output_stride: int, middle_blocks: int, make: Maker):
    make = make._replace(init=he_normal_fan_in, norm_bias=1e-4)
    shallow, middle, deep = (4 * width, 8 * width), 91 * width // 4, 64 * width
    dilation = 16 // output_stride
    self.conv1, self.bn1 = make.conv(3, width, 3, stride=2, padding=1), make.norm(width)
    self.conv2, self.bn2 = make.conv(width, 2 * width, 3, padding=1), make.norm(2 * width)
    self.block1 = Block(2 * width, shallow[0], make, 2, starts_with_relu=False)
    self.block2 = Block(*shallow, make, 2)
    self.block3 = Block(shallow[1], middle, make, 2 // dilation)
    last = FIRST_MIDDLE_BLOCK + middle_blocks
    for i in range(FIRST_MIDDLE_BLOCK, last):
      setattr(self, f"block{i}", Block(middle, middle, make, dilation=dilation))
    exit_block = Block(middle, 32 * width, make, dilation=dilation, grows_first=False)
    setattr(self, f"block{last}", exit_block)
    widths = (32 * width, 48 * width, 48 * width, deep)
    for i, (inner, outer) in enumerate(itertools.pairwise(widths), start=3):
      setattr(self, f"conv{i}", SeparableConv(inner, outer, make, dilation=2 * dilation))
      setattr(self, f"bn{i}", make.norm(outer))
    self.channels = (*shallow, middle, deep)
    self.last_block, self.remat = last, make.remat

  def __call__(self, images: jax.Array, train: bool) -> Features:
    """Four features [B,H/s,W/s,C] of images [B,H,W,3], normalised: after the blocks 1 and 2, the
    middle ones, and the last convolution, which alone is rectified.
    """
    x = nnx.relu(self.bn1(self.conv1(images), train))
    x = self.bn2(self.conv2(x), train)
    features = []
    for i in range(1, self.last_block + 1):
      x = run_block(getattr(self, f"block{i}"), x, train, self.remat)
      if i in (1, 2, self.last_block - 1):
        features.append(x)
    x = nnx.relu(x)
    for i in (3, 4, 5):
      conv, norm = getattr(self, f"conv{i}"), getattr(self, f"bn{i}")
      x = nnx.relu(norm(conv(x, train), train))
    return (*features, x)


@dataclasses.dataclass(frozen=True)
class XceptionTrunk(Trunk):
  """An Xception as a config describes it.

  width: channels of the stem, 32 in the paper; all else scales with it. middle_blocks: 8 in the
  paper, 16 in DeepLabV3+.
  """

  name: str = "xception"
  width: Channels = 32
  middle_blocks: CountFrom0 = 16

  def build(self, output_stride: int, style: Style, make: Maker) -> Xception:
    """Its initialisation is its own; raises ValueError for strides but 8 and 16."""
    require("config.model.output_stride of an xception", output_stride, (16, 8))
    make = make._replace(train_norms=style.train_norms)
    return Xception(self.width, output_stride, self.middle_blocks, make)
