"""DeepLabV3+ with a decoder of two 3x3 convolutions, as two originals have it.

The class-wise memory bank (Alonso et al. 2021, `model/deeplabv3.py`) and C3-SemiSeg (Zhou et al.
2021, `models/deeplabv3_plus.py`).
"""

import dataclasses
from typing import ClassVar

import jax
from flax import nnx

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import LOW_LEVEL_DIM, linear_head
from semiseg_jax.models.layers import BatchNorm, Computation, he_normal_fan_in
from semiseg_jax.models.network import Outputs, Segmenter, Size
from semiseg_jax.models.plus import PlusDecoder
from semiseg_jax.models.resnet import MEMORY_BANK, Layout, ResNet, Style


class DeepLabV3PlusModule(Segmenter, PlusDecoder):
  def __init__(
    self, about: Architecture, num_classes: int, embedding_dim: int | None, computation: Computation
  ):
    dim, make = about.decoder_dim, computation.layers(about.STYLE.init, True, about.STYLE.norm_bias)
    self.trunk = about.build_trunk(computation)
    dims = {"aspp_dim": dim, "low_dim": LOW_LEVEL_DIM, "dim": dim}
    self.add_decoder(self.trunk.channels, about.rates, make, **dims, low_first=about.LOW_FIRST)
    self.feature_dim = dim
    self.classifier = linear_head(dim, num_classes, make)[0]
    self.representation = linear_head(dim, embedding_dim, make)

  def decode(
    self, features: tuple[jax.Array, ...], size: Size, train: bool, keys: jax.Array | None = None
  ) -> Outputs:
    x, dropped = self.read(features, train, keys)
    return Outputs(self.classifier(dropped), self.embed(x, train), x)


@dataclasses.dataclass(frozen=True)
class DeepLabV3Plus(Architecture):
  """A decoder of two 3x3 convolutions and dropout; outputs at stride 4.

  decoder_dim: channels of ASPP and decoder. LOW_FIRST: the order in which features are joined.
  """

  decoder_dim: int = 256

  LOW_FIRST: ClassVar[bool] = False
  STYLE = MEMORY_BANK
  MODULE = DeepLabV3PlusModule


@dataclasses.dataclass(frozen=True)
class DeepLabV3PlusC3(DeepLabV3Plus):
  """C3-SemiSeg's, whose trunk may be an xception too."""

  freeze_bn: bool = True

  RATES: ClassVar = {16: (6, 12, 18), 8: (12, 24, 36)}
  STYLE = Style(Layout(dilate_first=True), init=he_normal_fan_in, norm_bias=1e-4)
  LOW_FIRST = True

  def build_trunk(self, computation: Computation) -> nnx.Module:
    """Frozen are the BatchNorms with "bn" in their names: not a ResNet's first, layer0.1 there, nor
    those of its shortcuts, nor those behind an xception's separable convolutions.
    """
    trunk = super().build_trunk(computation)
    unnamed = [("bn1",)] if isinstance(trunk, ResNet) else []
    for path, layer in nnx.iter_modules(trunk):
      if isinstance(layer, BatchNorm) and path not in unnamed and "bn" in str(path):
        layer.freeze()
    return trunk


NETWORKS = {"deeplabv3plus": DeepLabV3Plus, "deeplabv3plus_c3": DeepLabV3PlusC3}
