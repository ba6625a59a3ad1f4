"""DeepLabV2 (Chen et al. 2017), as ReCo and as the class-wise memory bank have it."""

import dataclasses
from typing import Annotated, ClassVar

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import SummedConvs, linear_head
from semiseg_jax.models.layers import Maker
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.resnet import MEMORY_BANK
from semiseg_jax.values import Range

Branches = Annotated[int, Range(1, 4)]


class DeepLabV2Module(Segmenter):
  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    self.feature_dim = self.trunk.channels[-1]
    branches = about.classifier_branches
    self.classifier = SummedConvs(self.feature_dim, num_classes, about.rates, branches, make)
    self.representation = linear_head(self.feature_dim, embedding_dim, make)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    x = features[-1]
    return Outputs(self.classifier(x), self.embed(x, train), x)


@dataclasses.dataclass(frozen=True)
class DeepLabV2(Architecture):
  """The trunk, and a classifier of dilated convolutions; outputs at the trunk's stride.

  classifier_branches: how many of its 4 convolutions are added up.
  """

  output_stride: int = 8
  classifier_branches: Branches = 4

  RATES: ClassVar = {8: (6, 12, 18, 24)}
  MODULE = DeepLabV2Module


@dataclasses.dataclass(frozen=True)
class DeepLabV2ImageNet(DeepLabV2):
  """The memory bank's, for a trunk from ImageNet; its code returns within the loop over four."""

  classifier_branches: Branches = 2

  STYLE = MEMORY_BANK


@dataclasses.dataclass(frozen=True)
class DeepLabV2COCO(DeepLabV2ImageNet):
  """The memory bank's, for AdvSemiSeg's weights from COCO."""

  STYLE = MEMORY_BANK._replace(stride_in_1x1=True, ceil_pool=True)


NETWORKS = {
  "deeplabv2": DeepLabV2,
  "deeplabv2_imagenet": DeepLabV2ImageNet,
  "deeplabv2_coco": DeepLabV2COCO,
}
