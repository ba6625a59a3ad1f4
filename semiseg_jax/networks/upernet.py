"""UperNet (Xiao et al. 2018), as pytorch-segmentation has it (its `models/upernet.py`)."""

import dataclasses
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from semiseg_jax.models.architecture import OF_SEVERAL_STRIDES, Architecture
from semiseg_jax.models.heads import conv_norm_relu, linear_head
from semiseg_jax.models.layers import Maker, Sequential, he_normal_fan_in
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.pyramid import PyramidPooling
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.models.trunk import Style


class FeaturePyramid(nnx.Module):
  """All stages at the shallowest one's size, in one.

  As the original has it, a level gets the next deeper stage's own projection, not what that level
  had got; the shallowest is not projected, so its channels are dim; and one smoothing serves all.
  """

  def __init__(self, channels: tuple[int, ...], dim: int, make: Maker):
    self.conv1x1 = nnx.List([make.conv(c, dim, 1, use_bias=True) for c in channels[1:]])
    self.smooth_conv = make.conv(dim, dim, 3, padding=1, use_bias=True)
    self.conv_fusion = Sequential(conv_norm_relu(make, dim * len(channels), dim, 3))

  def __call__(self, features: Features, train: bool) -> jax.Array:
    """[B,h,w,dim] at the first one's size."""
    levels = [features[0], *(conv(x) for conv, x in zip(self.conv1x1, features[1:], strict=True))]
    grow = lambda x, like: resize_bilinear(x, like.shape[1:3], align_corners=True)
    joined = [
      self.smooth_conv(grow(deeper, level) + level) for level, deeper in itertools.pairwise(levels)
    ]
    joined = [grow(x, levels[0]) for x in (*joined, levels[-1])]
    return self.conv_fusion(jnp.concatenate(joined, axis=-1), train)


class UperNetModule(Segmenter):
  BINS = (1, 2, 4, 6)
  align_corners = False

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    shallowest, *_, deepest = self.channels
    self.feature_dim = shallowest
    self.pyramid = PyramidPooling(deepest, deepest, self.BINS, make)
    self.fpn = FeaturePyramid(self.channels, shallowest, make)
    options = {"padding": 1, "use_bias": True, "dtype": jnp.float32}
    self.classifier = make.conv(shallowest, num_classes, 3, **options)
    self.representation = linear_head(shallowest, embedding_dim, make)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    *shallow, x = features
    x = self.pyramid(x, train, keys if train else None)
    x = self.fpn((*shallow, x), train)
    return Outputs(self.classifier(x), self.embed(x, train), x)


@dataclasses.dataclass(frozen=True)
class UperNet(Architecture):
  """Pyramid pooling under a feature pyramid; outputs at stride 4.

  The pyramid has as many channels as the trunk's first stage: 256 on large ResNets.
  """

  RATES: ClassVar = {16: (), 8: (), 32: ()}
  TRUNKS: ClassVar = OF_SEVERAL_STRIDES
  STYLE = Style(dilate_first=True, init=he_normal_fan_in, norm_bias=1e-4)
  MODULE = UperNetModule


NETWORKS = {"upernet": UperNet}
