"""SegNet (Badrinarayanan et al. 2017), as pytorch-segmentation has it (its `models/segnet.py`)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import linear_head
from semiseg_jax.models.layers import Maker, Sequential, he_normal_fan_in
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.trunk import Style, Trunk
from semiseg_jax.models.unpool import max_pool_places, max_unpool
from semiseg_jax.models.vgg import DEPTHS, VGGTrunk


class SegNetModule(Segmenter):
  """Each stage of the decoder puts values back to where the encoder's maxima were."""

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    widths = self.trunk.channels
    for i, (depth, width) in enumerate(zip(DEPTHS[::-1], widths[::-1], strict=True), start=1):
      last = widths[max(4 - i, 0)]
      self.add_stage(f"stage{i}_decoder", width, [width] * (depth - 1) + [last], make)
    self.feature_dim = widths[0]
    options = {"padding": 1, "use_bias": True, "dtype": jnp.float32}
    self.classifier = make.conv(self.feature_dim, num_classes, 3, **options)
    self.representation = linear_head(self.feature_dim, embedding_dim, make)

  def add_stage(self, name: str, channels: int, widths: list[int], make: Maker) -> None:
    layers = []
    for width in widths:
      conv = make.conv(channels, width, 3, padding=1, use_bias=True)
      layers += [conv, make.norm(width), jax.nn.relu]
      channels = width
    setattr(self, name, Sequential(layers))

  @property
  def channels(self) -> tuple[int, ...]:
    return (*self.trunk.channels, self.trunk.channels[-1])

  def encode(self, images: jax.Array, train: bool, keys: Keys = None) -> Features:
    """The places of each stage's maxima, and the last maxima."""
    x, places = images, []
    for stage in self.trunk.stages:
      x, place = max_pool_places(stage(x, train))
      places.append(place)
    return (*places, x)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    *places, x = features
    for i, place in enumerate(reversed(places), start=1):
      shape = tuple(n // 2 ** (5 - i) for n in size)
      x = getattr(self, f"stage{i}_decoder")(max_unpool(x, place, shape), train)
    return Outputs(self.classifier(x), self.embed(x, train), x)


VGG16_BN = VGGTrunk("vgg16_bn")


@dataclasses.dataclass(frozen=True)
class SegNet(Architecture):
  """A VGG and its mirror image; outputs at the size of the image, whose sides are 32 or more."""

  trunk: Trunk = VGG16_BN
  output_stride: int = 32

  RATES: ClassVar = {32: ()}
  TRUNKS: ClassVar = (VGGTrunk,)
  STYLE = Style(trunk_init=he_normal_fan_in, init=he_normal_fan_in, norm_bias=1e-4)
  MODULE = SegNetModule


NETWORKS = {"segnet": SegNet}
