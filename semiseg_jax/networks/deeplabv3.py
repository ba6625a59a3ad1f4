"""DeepLabV3 (Chen et al. 2017), as torchvision has it."""

import dataclasses
from typing import ClassVar

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import ASPP, linear_head, pixel_head
from semiseg_jax.models.layers import Maker, dropout
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.values import Channels


class DeepLabV3Module(Segmenter):
  DROPOUT = 0.5
  align_corners = False

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    dim = about.decoder_dim
    self.trunk = about.build_trunk(make)
    *_, middle, channels = self.trunk.channels
    self.ASPP = ASPP(channels, dim, about.rates, make)
    self.feature_dim = dim
    self.classifier = pixel_head(dim, dim, num_classes, make)
    self.representation = linear_head(dim, embedding_dim, make)
    aux_classes = num_classes if about.aux_head else None
    frozen = make._replace(train_convs=False, train_norms=False)
    self.aux_classifier = pixel_head(middle, middle // 4, aux_classes, frozen)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    *_, middle, high = features
    x = self.ASPP(high, train)
    logits = self.classifier(dropout(x, self.DROPOUT, keys if train else None), train)
    has_aux = self.aux_classifier is not None and not train
    aux_logits = self.aux_classifier(middle, False) if has_aux else None
    return Outputs(logits, self.embed(x, train), x, aux_logits)


@dataclasses.dataclass(frozen=True)
class DeepLabV3(Architecture):
  """Dilated trunk, ASPP, one 3x3; outputs at the trunk's stride.

  decoder_dim: channels of ASPP and head. aux_head: a second classifier on stage 3. It comes along
  with published weights; no method here learns with it, so it is frozen, and left out in training.
  """

  output_stride: int = 8
  decoder_dim: Channels = 256
  aux_head: bool = False

  RATES: ClassVar = {8: (12, 24, 36), 16: (6, 12, 18)}
  MODULE = DeepLabV3Module


NETWORKS = {"deeplabv3": DeepLabV3}
