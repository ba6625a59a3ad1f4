"""VGG trunks (Simonyan and Zisserman 2015), with BatchNorm or without."""

import dataclasses

import jax
from flax import nnx

from semiseg_jax.models.layers import Maker, Sequential, max_pool
from semiseg_jax.models.network import Features
from semiseg_jax.models.trunk import Style, Trunk

DEPTHS = (2, 2, 3, 3, 3)  # of VGG16's stages


class VGG(nnx.Module):
  """Five stages of 3x3 convolutions, at strides 1 to 16 of the image.

  A stage's layers are numbered as in the originals' Sequentials: convolution, BatchNorm if there
  are any, ReLU. channels: of each stage.
  """

  def __init__(self, width: int, has_norms: bool, ceil_pool: bool, make: Maker):
    self.ceil_pool = ceil_pool
    self.channels = tuple(width * min(1 << stage, 8) for stage in range(5))
    inputs = 3
    for i, (depth, channels) in enumerate(zip(DEPTHS, self.channels, strict=True), start=1):
      layers = []
      for _ in range(depth):
        norms = [make.norm(channels)] if has_norms else []
        layers += [make.conv(inputs, channels, 3, padding=1, use_bias=True), *norms, nnx.relu]
        inputs = channels
      setattr(self, f"stage{i}", Sequential(layers))

  @property
  def stages(self) -> tuple[Sequential, ...]:
    return self.stage1, self.stage2, self.stage3, self.stage4, self.stage5

  def __call__(self, images: jax.Array, train: bool) -> Features:
    """The five stages' outputs behind their pools, at strides 2 to 32."""
    x, features = images, []
    for stage in self.stages:
      x = max_pool(stage(x, train), 2, 2, ceil_mode=self.ceil_pool)
      features.append(x)
    return tuple(features)


@dataclasses.dataclass(frozen=True)
class VGGTrunk(Trunk):
  """A VGG as a config describes it: name vgg16 | vgg16_bn; nothing is recomputed (remat)."""

  name: str = "vgg16"

  def build(self, output_stride: int, style: Style, make: Maker) -> VGG:
    make = make._replace(init=style.trunk_init, norm_bias=0.0)
    return VGG(self.width, self.name.endswith("_bn"), style.ceil_pool, make)
