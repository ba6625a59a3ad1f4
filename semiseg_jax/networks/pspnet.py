"""PSPNet (Zhao et al. 2017), as pytorch-segmentation has it (its `models/pspnet.py`)."""

import dataclasses
from typing import ClassVar

import jax
from flax import nnx

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import conv_norm_relu, linear_head
from semiseg_jax.models.layers import Maker, Sequential, dropout, he_normal_fan_in, split_keys
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.pyramid import PyramidPooling
from semiseg_jax.models.resnet import ResNetTrunk
from semiseg_jax.models.trunk import Style, Trunk


class AuxHead(nnx.Module):
  """A classifier on an earlier stage: 3x3, dropout of whole channels, 1x1."""

  DROPOUT = 0.1

  def __init__(self, channels: int, dim: int, num_classes: int, make: Maker):
    self.before = Sequential(conv_norm_relu(make, channels, dim, 3))
    self.last = linear_head(dim, num_classes, make)[0]

  def __call__(self, x: jax.Array, train: bool, keys: Keys = None) -> jax.Array:
    return self.last(dropout(self.before(x, train), self.DROPOUT, keys, whole_channels=True))


class PSPNetModule(Segmenter):
  BINS = (1, 2, 3, 6)
  align_corners = False

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    *_, middle, channels = self.trunk.channels
    dim = self.feature_dim = channels // 4
    self.pyramid = PyramidPooling(channels, dim, self.BINS, make)
    self.classifier = linear_head(dim, num_classes, make)[0]
    self.representation = linear_head(dim, embedding_dim, make)
    self.aux_classifier = AuxHead(middle, dim, num_classes, make) if about.aux_head else None

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    *_, middle, high = features
    pyramid_keys, aux_keys = split_keys(keys if train else None)
    x = self.pyramid(high, train, pyramid_keys)
    aux_logits = None
    if self.aux_classifier is not None and train:
      aux_logits = self.aux_classifier(middle, train, aux_keys)
    return Outputs(self.classifier(x), self.embed(x, train), x, aux_logits)


DEEP_RESNET101 = ResNetTrunk(deep_stem=True)


@dataclasses.dataclass(frozen=True)
class PSPNet(Architecture):
  """Pyramid pooling on a dilated trunk; outputs at the trunk's stride.

  aux_head: whether a second classifier on stage 3 is trained too.
  """

  trunk: Trunk = DEEP_RESNET101
  output_stride: int = 8
  aux_head: bool = True

  RATES: ClassVar = {8: (), 16: (), 32: ()}
  STYLE = Style(init=he_normal_fan_in, norm_bias=1e-4)
  MODULE = PSPNetModule


NETWORKS = {"pspnet": PSPNet}
