"""ENet (Paszke et al. 2016), as pytorch-segmentation has it (its `models/enet.py`)."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.enet import Bottleneck, ENetTrunk, block_keys
from semiseg_jax.models.heads import linear_head
from semiseg_jax.models.layers import Maker, he_normal_fan_in
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.models.trunk import Style, Trunk


class ENetModule(Segmenter):
  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    narrow, middle, wide = self.channels
    block = lambda *about: Bottleneck(*about, 0.1, False, make)
    self.bottleneck40 = block(wide, middle, "up")
    self.bottleneck41, self.bottleneck42 = block(middle, middle, 1), block(middle, middle, 1)
    self.bottleneck50 = block(middle, narrow, "up")
    self.bottleneck51 = block(narrow, narrow, 1)
    self.feature_dim = narrow
    options = {"padding": 1, "extra": 1, "dtype": jnp.float32}
    self.classifier = make.conv_transpose(narrow, num_classes, 3, **options)
    self.representation = linear_head(narrow, embedding_dim, make)

  def encode(self, images: jax.Array, train: bool, keys: Keys = None) -> Features:
    return self.trunk(images, train, keys if train else None)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    first, second, x = features
    key = functools.partial(block_keys, keys if train else None)
    half = tuple(-(-n // 2) for n in size)
    quarter = tuple(-(-n // 2) for n in half)
    x = self.bottleneck40.up(x, train, key(40), second, quarter)
    x = self.bottleneck42(self.bottleneck41(x, train, key(41)), train, key(42))
    x = self.bottleneck50.up(x, train, key(50), first, half)
    x = self.bottleneck51(x, train, key(51))
    logits = self.classifier(x)[:, : size[0], : size[1]]
    x = resize_bilinear(x, size, align_corners=False)  # for what else is said of each pixel
    return Outputs(logits, self.embed(x, train), x)


ENET_TRUNK = ENetTrunk()


@dataclasses.dataclass(frozen=True)
class ENet(Architecture):
  """Small and quick; outputs at the size of the image, without the original's row too many."""

  trunk: Trunk = ENET_TRUNK
  output_stride: int = 8

  RATES: ClassVar = {8: ()}
  TRUNKS: ClassVar = (ENetTrunk,)
  STYLE = Style(trunk_init=he_normal_fan_in, init=he_normal_fan_in, norm_bias=1e-4)
  MODULE = ENetModule


NETWORKS = {"enet": ENet}
