"""SegNet (Badrinarayanan et al. 2017), as pytorch-segmentation has it (its `models/segnet.py`)."""

import dataclasses
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import linear_head
from semiseg_jax.models.layers import Conv, Maker, Sequential, call_layer, he_normal_fan_in
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.trunk import Style, Trunk
from semiseg_jax.models.unpool import max_pool_places, max_unpool
from semiseg_jax.models.vgg import DEPTHS, VGGTrunk


@dataclasses.dataclass(frozen=True)
class Shared:
  """Which layer of the encoder stands in a place of the decoder; a tree has each module once."""

  stage: int
  layer: int


class SegNetModule(Segmenter):
  """Each stage of the decoder puts values back to where the encoder's maxima were."""

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    widths = self.trunk.channels
    for i, (depth, width) in enumerate(zip(DEPTHS[::-1], widths[::-1], strict=True), start=1):
      last = widths[max(4 - i, 0)]
      self.add_stage(i, [width] * depth + [last], about.tied, make)
    self.feature_dim = widths[0]
    options = {"padding": 1, "use_bias": True, "dtype": jnp.float32}
    self.classifier = make.conv(self.feature_dim, num_classes, 3, **options)
    self.representation = linear_head(self.feature_dim, embedding_dim, make)

  def add_stage(self, number: int, widths: list[int], tied: bool, make: Maker) -> None:
    """widths: of what goes in, and of each convolution; tied: see `SegNet`."""
    stage, layers = len(DEPTHS) - number, []
    mirror = [i for i, x in enumerate(self.trunk.stages[stage]) if isinstance(x, Conv)][::-1]
    for i, (channels, width) in zip(mirror, itertools.pairwise(widths), strict=True):
      own = [make.conv(channels, width, 3, padding=1, use_bias=True), make.norm(width)]
      theirs = [Shared(stage, i), Shared(stage, i + 1)]
      pairs = zip(own, theirs, strict=True)
      layers += [y if tied and _alike(x, self.layer(y)) else x for x, y in pairs]
      layers.append(jax.nn.relu)
    setattr(self, f"stage{number}_decoder", Sequential(layers))

  def layer(self, shared: Shared) -> nnx.Module:
    return self.trunk.stages[shared.stage][shared.layer]

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
      x = max_unpool(x, place, shape)
      for layer in getattr(self, f"stage{i}_decoder"):
        x = call_layer(self.layer(layer) if isinstance(layer, Shared) else layer, x, train)
    return Outputs(self.classifier(x), self.embed(x, train), x)


def _alike(layer: nnx.Module, other: nnx.Module) -> bool:
  """Whether they are of one kind and size."""
  sizes = lambda module: [x.shape for x in jax.tree.leaves(nnx.state(module))]
  return type(layer) is type(other) and sizes(layer) == sizes(other)


VGG16_BN = VGGTrunk("vgg16_bn")


@dataclasses.dataclass(frozen=True)
class SegNet(Architecture):
  """A VGG and its mirror image; outputs at the size of the image, whose sides are 32 or more.

  tied: a decoder's layer of the size of the encoder's in the mirrored place is that layer, whose
  BatchNorm then averages both its batches. Source: `models/segnet.py` of the RankDice fork.
  """

  trunk: Trunk = VGG16_BN
  output_stride: int = 32
  tied: bool = False

  RATES: ClassVar = {32: ()}
  TRUNKS: ClassVar = (VGGTrunk,)
  STYLE = Style(trunk_init=he_normal_fan_in, init=he_normal_fan_in, norm_bias=1e-4)
  MODULE = SegNetModule


NETWORKS = {"segnet": SegNet}
