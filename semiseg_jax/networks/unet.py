"""U-Net (Ronneberger et al. 2015) and its form on a ResNet, as pytorch-segmentation has them."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import linear_head
from semiseg_jax.models.layers import Maker, he_normal_fan_in
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.models.resnet import ResNetTrunk
from semiseg_jax.models.trunk import Style, Trunk
from semiseg_jax.models.unet import UNetTrunk, two_convs


class Up(nnx.Module):
  """Twice the size and half the channels, joined to a shallower stage's features."""

  def __init__(self, channels: int, make: Maker):
    half = channels // 2
    self.up = make.conv_transpose(channels, half, 2, use_bias=True)
    self.up_conv = two_convs(channels, half, make)

  def __call__(self, x: jax.Array, skip: jax.Array, train: bool) -> jax.Array:
    x = resize_bilinear(self.up(x), skip.shape[1:3], align_corners=True)
    return self.up_conv(jnp.concatenate([skip, x], axis=-1), train)


class UNetModule(Segmenter):
  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    self.feature_dim, *_, deepest = self.channels
    self.middle_conv = two_convs(deepest, deepest, make)
    for i, channels in enumerate(self.channels[:0:-1], start=1):
      setattr(self, f"up{i}", Up(channels, make))
    self.classifier = linear_head(self.feature_dim, num_classes, make)[0]
    self.representation = linear_head(self.feature_dim, embedding_dim, make)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    *skips, x = features
    x = self.middle_conv(x, train)
    for up, skip in zip((self.up1, self.up2, self.up3, self.up4), reversed(skips), strict=True):
      x = up(x, skip, train)
    return Outputs(self.classifier(x), self.embed(x, train), x)


class UNetResNetModule(Segmenter):
  """Its decoder is linear: there is neither BatchNorm nor an activation in it."""

  WIDTHS = ((192, 128), (128, 96), (96, 64), (64, 48), (48, 32))  # of convolutions and transposes

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    skips, inputs = [*self.channels[-2::-1], 0, 0], self.channels[-1]
    for i, (width, grown) in enumerate(self.WIDTHS, start=1):
      setattr(self, f"conv{i}", make.conv(inputs, width, 3, padding=1, use_bias=True))
      setattr(self, f"upconv{i}", make.conv_transpose(width, grown, 4, padding=1))
      inputs = grown + skips[i - 1]
    self.feature_dim = inputs
    self.conv6 = make.conv(inputs, inputs, 3, padding=1, use_bias=True)
    self.classifier = make.conv(inputs, num_classes, 1, dtype=jnp.float32)
    self.representation = linear_head(inputs, embedding_dim, make)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    *skips, x = features
    for i, skip in enumerate([*reversed(skips), None, None], start=1):
      x = getattr(self, f"upconv{i}")(getattr(self, f"conv{i}")(x))
      if skip is not None:
        x = resize_bilinear(x, skip.shape[1:3], align_corners=True)
        x = jnp.concatenate([x, skip], axis=-1)
    x = self.conv6(resize_bilinear(x, size, align_corners=True))
    return Outputs(self.classifier(x), self.embed(x, train), x)


UNET_TRUNK = UNetTrunk()
RESNET50 = ResNetTrunk("resnet50", deep_stem=True)


@dataclasses.dataclass(frozen=True)
class UNet(Architecture):
  """Encoder and decoder of four steps each; outputs at the size of the image."""

  trunk: Trunk = UNET_TRUNK

  RATES: ClassVar = {16: ()}
  TRUNKS: ClassVar = (UNetTrunk,)
  STYLE = Style(trunk_init=he_normal_fan_in, init=he_normal_fan_in)
  MODULE = UNetModule


@dataclasses.dataclass(frozen=True)
class UNetResNet(Architecture):
  """A ResNet at stride 8 under a linear decoder; outputs at the size of the image."""

  trunk: Trunk = RESNET50
  output_stride: int = 8

  RATES: ClassVar = {8: ()}
  TRUNKS: ClassVar = (ResNetTrunk,)
  STYLE = Style(init=he_normal_fan_in)
  MODULE = UNetResNetModule


NETWORKS = {"unet": UNet, "unet_resnet": UNetResNet}
