"""Networks as configs describe them: a trunk in its slot, a decoder, heads.

A description is a frozen dataclass whose fields are that network's keys in config.model.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

from flax import nnx

from semiseg_jax.fields import require
from semiseg_jax.models.densenet import DenseNetTrunk
from semiseg_jax.models.layers import Maker, freeze, freeze_statistics
from semiseg_jax.models.network import Segmenter
from semiseg_jax.models.resnet import RESNET101, ResNetTrunk
from semiseg_jax.models.trunk import REMAT, Style, Trunk
from semiseg_jax.models.vit import ViTTrunk
from semiseg_jax.models.xception import XceptionTrunk

OF_SEVERAL_STRIDES = (ResNetTrunk, DenseNetTrunk, XceptionTrunk)


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What every network's description inherits.

  trunk: the encoder. output_stride: of the trunk. freeze_bn: which BatchNorms compute in training
  as in evaluation, and keep their statistics: none | trunk | all. freeze_trunk: its parameters stay
  as they are. RATES: of the dilated 3x3 convolutions on the trunk, by the output strides that there
  are. TRUNKS: the kinds that it stands on. STYLE: what its original does its own way. OF_IMAGES:
  whether it classifies whole images.
  """

  trunk: Trunk = RESNET101
  output_stride: int = 16
  freeze_bn: Literal["none", "trunk", "all"] = "none"
  freeze_trunk: bool = False

  MODULE: ClassVar[type[Segmenter]]
  RATES: ClassVar[Mapping[int, tuple[int, ...]]] = {16: (6, 12, 18)}
  TRUNKS: ClassVar[tuple[type[Trunk], ...]] = (*OF_SEVERAL_STRIDES, ViTTrunk)
  STYLE: ClassVar[Style] = Style()
  OF_IMAGES: ClassVar[bool] = False

  def __post_init__(self):
    if not isinstance(self.trunk, self.TRUNKS):
      own = ", ".join(repr(kind().name) for kind in self.TRUNKS)
      why = "does not carry this network"
      if self.trunk.ONE_STRIDE:
        why = "has features of one stride alone, and this network needs others"
      raise ValueError(f"config.model.trunk.name={self.trunk.name!r} {why}: take one such as {own}")
    require("config.model.output_stride", self.output_stride, self.RATES)

  @property
  def rates(self) -> tuple[int, ...]:
    return self.RATES[self.output_stride]

  def build_trunk(self, make: Maker) -> nnx.Module:
    """Raises ValueError for an unknown remat."""
    require("config.model.remat", make.remat, REMAT)
    return self.trunk.build(self.output_stride, self.STYLE, make)

  def build(self, num_classes: int, embedding_dim: int | None, make: Maker) -> Segmenter:
    """The module with fresh weights; embedding_dim: of its representation head, None for none."""
    make = make._replace(init=self.STYLE.init, norm_bias=self.STYLE.norm_bias)
    module = self.MODULE(self, num_classes, embedding_dim, make)
    if self.freeze_bn != "none":
      freeze_statistics(module if self.freeze_bn == "all" else module.trunk)
    if self.freeze_trunk:
      freeze(module.trunk)
    return module
