"""The classifiers of ImageNet whose weights trunks start from; there for their weights alone."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.densenet import DenseNetTrunk
from semiseg_jax.models.heads import linear_head
from semiseg_jax.models.layers import Linear, Maker, dropout, split_keys
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.pyramid import MeanGrid
from semiseg_jax.models.resnet import ResNetTrunk
from semiseg_jax.models.trunk import Trunk
from semiseg_jax.models.vgg import VGGTrunk
from semiseg_jax.values import Channels


class MeanClassifier(Segmenter):
  """A linear layer on the mean over the image."""

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    self.feature_dim = self.trunk.channels[-1]
    self.classifier = Linear(self.feature_dim, num_classes, rng=make.rng)
    self.representation = linear_head(self.feature_dim, embedding_dim, make)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    x = features[-1].mean((1, 2), keepdims=True, dtype=jnp.float32)
    return Outputs(self.classifier(x), self.embed(x, train), x)


class NormedMeanClassifier(MeanClassifier):
  """The same behind one more BatchNorm and ReLU."""

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    super().__init__(about, num_classes, embedding_dim, make)
    self.norm5 = make.norm(self.feature_dim)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    last = nnx.relu(self.norm5(features[-1], train))
    return super().decode((last,), size, train, keys)


class GridClassifier(Segmenter):
  """Three layers on a grid of 7x7 means; conv6 and conv7, called so as in FCN-8s, are linear."""

  GRID, DROPOUT = 7, 0.5

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    self.feature_dim = about.decoder_dim
    self.pool = MeanGrid(self.GRID)
    channels = self.trunk.channels[-1]
    self.conv6 = make.conv(channels, self.feature_dim, self.GRID, use_bias=True)
    self.conv7 = make.conv(self.feature_dim, self.feature_dim, 1, use_bias=True)
    self.classifier = Linear(self.feature_dim, num_classes, rng=make.rng)
    self.representation = linear_head(self.feature_dim, embedding_dim, make)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    first_keys, second_keys = split_keys(keys if train else None)
    x = dropout(nnx.relu(self.conv6(self.pool(features[-1]))), self.DROPOUT, first_keys)
    x = dropout(nnx.relu(self.conv7(x)), self.DROPOUT, second_keys)
    return Outputs(self.classifier(x), self.embed(x, train), x)


@dataclasses.dataclass(frozen=True)
class ResNetClassifier(Architecture):
  """A ResNet for whole images: logits [B,1,1,K]."""

  output_stride: int = 32

  RATES: ClassVar = {32: ()}
  TRUNKS: ClassVar = (ResNetTrunk,)
  OF_IMAGES: ClassVar = True
  MODULE = MeanClassifier


DENSENET121 = DenseNetTrunk()


@dataclasses.dataclass(frozen=True)
class DenseNetClassifier(ResNetClassifier):
  """A DenseNet for whole images."""

  trunk: Trunk = DENSENET121

  TRUNKS: ClassVar = (DenseNetTrunk,)
  MODULE = NormedMeanClassifier


VGG16 = VGGTrunk()


@dataclasses.dataclass(frozen=True)
class VGGClassifier(ResNetClassifier):
  """A VGG for whole images; decoder_dim: of its first two linear layers."""

  trunk: Trunk = VGG16
  decoder_dim: Channels = 4096

  TRUNKS: ClassVar = (VGGTrunk,)
  MODULE = GridClassifier


NETWORKS = {"resnet": ResNetClassifier, "densenet": DenseNetClassifier, "vgg": VGGClassifier}
