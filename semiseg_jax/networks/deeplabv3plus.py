"""DeepLabV3+ (Chen et al. 2018), as ReCo, the class-wise memory bank and C3-SemiSeg have it."""

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp
from flax import nnx

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import linear_head, pixel_head
from semiseg_jax.models.layers import BatchNorm, Maker, freeze, he_normal_fan_in
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.plus import LowAndHigh, PlusDecoder
from semiseg_jax.models.resnet import MEMORY_BANK, ResNet
from semiseg_jax.models.trunk import Style
from semiseg_jax.values import Channels


class DeepLabV3PModule(Segmenter, LowAndHigh):
  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    dim, self.feature_dim = about.decoder_dim, self.LOW_DIM + about.decoder_dim
    self.trunk = about.build_trunk(make)
    self.add_low_and_high(self.channels, dim, about.rates, make)
    self.classifier = pixel_head(self.feature_dim, dim, num_classes, make)
    self.representation = pixel_head(self.feature_dim, dim, embedding_dim, make)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    x = jnp.concatenate(self.low_and_high(features, train), axis=-1)
    return Outputs(self.classifier(x, train), self.embed(x, train), x)


class DeepLabV3PlusModule(Segmenter, PlusDecoder):
  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    dim = self.feature_dim = about.decoder_dim
    self.trunk = about.build_trunk(make)
    self.add_decoder(self.channels, dim, dim, about.rates, make)
    self.classifier = linear_head(dim, num_classes, make)[0]
    self.representation = linear_head(dim, embedding_dim, make)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    x, dropped = self.read(features, train, keys)
    return Outputs(self.classifier(dropped), self.embed(x, train), x)


class DeepLabV3PlusC3Module(DeepLabV3PlusModule):
  LOW_FIRST = True


@dataclasses.dataclass(frozen=True)
class DeepLabV3P(Architecture):
  """ReCo's: one 3x3 in each head; outputs at stride 4 (side n gives ceil(n/4)).

  decoder_dim: channels of ASPP and heads.
  """

  decoder_dim: Channels = 256

  RATES: ClassVar = {16: (6, 12, 18), 8: (12, 24, 36)}
  MODULE = DeepLabV3PModule


@dataclasses.dataclass(frozen=True)
class DeepLabV3Plus(Architecture):
  """The memory bank's (its `model/deeplabv3.py`): a decoder of two 3x3 convolutions and dropout.

  Outputs at stride 4. decoder_dim: channels of ASPP and decoder.
  """

  decoder_dim: Channels = 256

  STYLE = MEMORY_BANK
  MODULE = DeepLabV3PlusModule


@dataclasses.dataclass(frozen=True)
class DeepLabV3PlusC3(DeepLabV3Plus):
  """C3-SemiSeg's (its `models/deeplabv3_plus.py`), whose trunk may be an xception too."""

  freeze_bn: Literal["none", "trunk", "all"] = "trunk"

  RATES: ClassVar = {16: (6, 12, 18), 8: (12, 24, 36)}
  STYLE = Style(dilate_first=True, init=he_normal_fan_in, norm_bias=1e-4)
  MODULE = DeepLabV3PlusC3Module

  def build_trunk(self, make: Maker) -> nnx.Module:
    """Frozen are the BatchNorms with "bn" in their names: not a ResNet's first, layer0.1 there, nor
    those of its shortcuts, nor those behind an xception's separable convolutions.
    """
    trunk = super().build_trunk(make)
    unnamed = [("bn1",)] if isinstance(trunk, ResNet) else []
    for path, layer in nnx.iter_modules(trunk):
      if isinstance(layer, BatchNorm) and path not in unnamed and "bn" in str(path):
        freeze(layer)
    return trunk


@dataclasses.dataclass(frozen=True)
class DeepLabV3PlusZoo(DeepLabV3Plus):
  """pytorch-segmentation's (its `models/deeplabv3_plus.py`), of which all is trained."""

  RATES: ClassVar = DeepLabV3PlusC3.RATES
  STYLE = DeepLabV3PlusC3.STYLE
  MODULE = DeepLabV3PlusC3Module


NETWORKS = {
  "deeplabv3p": DeepLabV3P,
  "deeplabv3plus": DeepLabV3Plus,
  "deeplabv3plus_c3": DeepLabV3PlusC3,
  "deeplabv3plus_zoo": DeepLabV3PlusZoo,
}
