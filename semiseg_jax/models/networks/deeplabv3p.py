"""DeepLabV3+ (Chen et al. 2018), as ReCo has it."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import ASPP, LOW_LEVEL_DIM, conv_norm_relu, pixel_head
from semiseg_jax.models.layers import Computation, Sequential
from semiseg_jax.models.network import Outputs, Segmenter, Size
from semiseg_jax.models.resize import resize_bilinear


class DeepLabV3PModule(Segmenter):
  def __init__(
    self, about: Architecture, num_classes: int, embedding_dim: int | None, computation: Computation
  ):
    dim, make = about.decoder_dim, computation.layers(about.STYLE.init)
    self.trunk = about.build_trunk(computation)
    low, *_, high = self.trunk.channels
    self.ASPP = ASPP(high, dim, about.rates, make)
    self.project = Sequential(conv_norm_relu(make, low, LOW_LEVEL_DIM, 1))
    self.feature_dim = LOW_LEVEL_DIM + dim
    self.classifier = pixel_head(self.feature_dim, dim, num_classes, make)
    self.representation = pixel_head(self.feature_dim, dim, embedding_dim, make)

  def decode(
    self, features: tuple[jax.Array, ...], size: Size, train: bool, keys: jax.Array | None = None
  ) -> Outputs:
    low, *_, high = features
    high = self.ASPP(high, train)
    low = self.project(low, train)
    high = resize_bilinear(high, low.shape[1:3], align_corners=True)
    x = jnp.concatenate([low, high], axis=-1)
    return Outputs(self.classifier(x, train), self.embed(x, train), x)


@dataclasses.dataclass(frozen=True)
class DeepLabV3P(Architecture):
  """One 3x3 in each head; outputs at stride 4 (side n gives ceil(n/4)).

  decoder_dim: channels of ASPP and heads.
  """

  decoder_dim: int = 256

  RATES: ClassVar = {16: (6, 12, 18), 8: (12, 24, 36)}
  MODULE = DeepLabV3PModule


NETWORKS = {"deeplabv3p": DeepLabV3P}
