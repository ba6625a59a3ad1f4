"""SegNet's idea on a ResNet, as pytorch-segmentation has it (its `models/segnet.py`)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import linear_head
from semiseg_jax.models.layers import Maker, Sequential, he_normal_fan_in
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.resnet import BACKBONES, Block, Bottleneck, ResNetTrunk
from semiseg_jax.models.trunk import Style, Trunk
from semiseg_jax.models.unpool import overlapping_max_pool_places, overlapping_max_unpool


class Narrowing(Block):
  """A bottleneck to fewer channels, the last of its stage.

  doubles: to twice the size too; its 3x3 and the 1x1 past it are then transposed 2x2.
  """

  def __init__(self, channels: int, out_channels: int, doubles: bool, make: Maker):
    width, self.depth = channels // 4, 3
    self.conv1, self.bn1 = make.conv(channels, width, 1), make.norm(width)
    if doubles:
      self.conv2 = make.conv_transpose(width, width, 2)
      past = make.conv_transpose(channels, out_channels, 2)
    else:
      self.conv2 = make.conv(width, width, 3, padding=1)
      past = make.conv(channels, out_channels, 1)
    self.bn2 = make.norm(width)
    self.conv3, self.bn3 = make.conv(width, out_channels, 1), make.norm(out_channels)
    self.downsample = Sequential([past, make.norm(out_channels)])


class SegResNetModule(Segmenter):
  """The trunk's stages in reverse; then values go back to where the stem's maxima were."""

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    width = self.feature_dim = about.trunk.width
    outputs, stages = (width, *self.trunk.channels), []
    for i in (4, 3, 2, 1):
      channels, depth = outputs[i], len(getattr(self.trunk, f"layer{i}"))
      plain = (channels, channels // Bottleneck.expansion, 1, (1, 1), about.STYLE, make)
      blocks = [Bottleneck(*plain) for _ in range(depth - 1)]
      stages.append(nnx.List([*blocks, Narrowing(channels, outputs[i - 1], i > 1, make)]))
    self.decoder = nnx.List(stages)
    self.upsample = make.conv_transpose(width, width, 2)
    self.classifier = make.conv(width, num_classes, 3, padding=1, use_bias=True, dtype=jnp.float32)
    self.representation = linear_head(width, embedding_dim, make)

  @property
  def channels(self) -> tuple[int, ...]:
    return (self.feature_dim, self.trunk.channels[-1])

  def encode(self, images: jax.Array, train: bool, keys: Keys = None) -> Features:
    """The places of the stem's maxima, and the last stage's output."""
    x, place = overlapping_max_pool_places(self.trunk.stem(images, train))
    return place, self.trunk.stages(x, train)[-1]

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    place, x = features
    for stage in self.decoder:
      for block in stage:
        x = block(x, train)
    half = tuple(-(-n // 2) for n in size)
    x = self.upsample(overlapping_max_unpool(_middle(x, place.shape[1:3]), place, half))
    logits, x = (y[:, : size[0], : size[1]] for y in (self.classifier(x), x))
    return Outputs(logits, self.embed(x, train), x)


def _middle(x: jax.Array, size: Size) -> jax.Array:
  """The middle [B,*size,C] of x [B,H,W,C]."""
  height, width = size
  top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
  return x[:, top : top + height, left : left + width]


RESNET50 = ResNetTrunk("resnet50")


@dataclasses.dataclass(frozen=True)
class SegResNet(Architecture):
  """A ResNet and its mirror image, of bottlenecks on any trunk; outputs at the image's size."""

  trunk: Trunk = RESNET50
  output_stride: int = 32

  RATES: ClassVar = {32: ()}
  TRUNKS: ClassVar = (ResNetTrunk,)
  STYLE = Style(init=he_normal_fan_in, norm_bias=1e-4)
  MODULE = SegResNetModule

  def __post_init__(self):
    super().__post_init__()
    if self.trunk.width % Bottleneck.expansion and BACKBONES[self.trunk.name][0] is not Bottleneck:
      raise ValueError(
        f"config.model.trunk.width={self.trunk.width} must be a multiple of {Bottleneck.expansion} "
        f"for this network on a {self.trunk.name}"
      )


NETWORKS = {"segresnet": SegResNet}
