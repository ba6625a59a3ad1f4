"""The classifier of ImageNet whose weights all trunks start from; there for its weights alone."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import linear_head
from semiseg_jax.models.layers import Linear, Maker
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size


class ResNetClassifierModule(Segmenter):
  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    self.feature_dim = self.trunk.channels[-1]
    self.classifier = Linear(self.feature_dim, num_classes, rng=make.rng)
    self.representation = linear_head(self.feature_dim, embedding_dim, make)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    x = features[-1].mean((1, 2), keepdims=True, dtype=jnp.float32)
    return Outputs(self.classifier(x), self.embed(x, train), x)


@dataclasses.dataclass(frozen=True)
class ResNetClassifier(Architecture):
  """A ResNet for whole images: logits [B,1,1,K]."""

  output_stride: int = 32

  RATES: ClassVar = {32: ()}
  MODULE = ResNetClassifierModule


NETWORKS = {"resnet": ResNetClassifier}
