"""DeepLabV3+ (Chen et al. 2018), as ReCo and as the class-wise memory bank have it."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import ASPP, conv_norm_relu, linear_head, pixel_head
from semiseg_jax.models.layers import Maker, Sequential, dropout
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.models.resnet import MEMORY_BANK


class _LowAndHigh(Segmenter):
  """What both have: the first stage, projected, and the last one behind ASPP, at stride 4."""

  LOW_DIM, ASPP_DROPOUT = 48, 0.0

  def __init__(self, about: Architecture, make: Maker):
    self.trunk = about.build_trunk(make)
    low, *_, high = self.trunk.channels
    self.ASPP = ASPP(high, about.decoder_dim, about.rates, make, self.ASPP_DROPOUT)
    self.project = Sequential(conv_norm_relu(make, low, self.LOW_DIM, 1))

  def low_and_high(
    self, features: Features, train: bool, keys: Keys = None
  ) -> tuple[jax.Array, jax.Array]:
    low, *_, high = features
    high = self.ASPP(high, train, keys)
    low = self.project(low, train)
    return low, resize_bilinear(high, low.shape[1:3], align_corners=True)


class DeepLabV3PModule(_LowAndHigh):
  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    super().__init__(about, make)
    dim, self.feature_dim = about.decoder_dim, self.LOW_DIM + about.decoder_dim
    self.classifier = pixel_head(self.feature_dim, dim, num_classes, make)
    self.representation = pixel_head(self.feature_dim, dim, embedding_dim, make)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    x = jnp.concatenate(self.low_and_high(features, train), axis=-1)
    return Outputs(self.classifier(x, train), self.embed(x, train), x)


class DeepLabV3PlusModule(_LowAndHigh):
  ASPP_DROPOUT, DECODER_DROPOUT = 0.5, 0.1

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    super().__init__(about, make)
    dim = self.feature_dim = about.decoder_dim
    first = conv_norm_relu(make, dim + self.LOW_DIM, dim, 3)
    self.decoder = Sequential([*first, *conv_norm_relu(make, dim, dim, 3)])
    self.classifier = linear_head(dim, num_classes, make)[0]
    self.representation = linear_head(dim, embedding_dim, make)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    aspp_keys, decoder_keys = _two_keys(keys) if train and keys is not None else (None, None)
    low, high = self.low_and_high(features, train, aspp_keys)
    x = self.decoder(jnp.concatenate([high, low], axis=-1), train)
    logits = self.classifier(dropout(x, self.DECODER_DROPOUT, decoder_keys))
    return Outputs(logits, self.embed(x, train), x)


def _two_keys(keys: jax.Array) -> jax.Array:
  """Keys [B] as [2,B]."""
  return jax.vmap(jax.random.split, out_axes=1)(keys)


@dataclasses.dataclass(frozen=True)
class DeepLabV3P(Architecture):
  """ReCo's: one 3x3 in each head; outputs at stride 4 (side n gives ceil(n/4)).

  decoder_dim: channels of ASPP and heads.
  """

  decoder_dim: int = 256

  RATES: ClassVar = {16: (6, 12, 18), 8: (12, 24, 36)}
  MODULE = DeepLabV3PModule


@dataclasses.dataclass(frozen=True)
class DeepLabV3Plus(Architecture):
  """The memory bank's (its `model/deeplabv3.py`): a decoder of two 3x3 convolutions and dropout.

  Outputs at stride 4. decoder_dim: channels of ASPP and decoder.
  """

  decoder_dim: int = 256

  STYLE = MEMORY_BANK
  MODULE = DeepLabV3PlusModule


NETWORKS = {"deeplabv3p": DeepLabV3P, "deeplabv3plus": DeepLabV3Plus}
