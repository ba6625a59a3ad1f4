"""DeepLab with dense upsampling and hybrid dilation (Wang et al. 2018), as pytorch-segmentation has
it (its `models/duc_hdc.py`)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from semiseg_jax.models.architecture import OF_SEVERAL_STRIDES, Architecture
from semiseg_jax.models.heads import linear_head
from semiseg_jax.models.layers import Maker, he_normal_fan_in
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.plus import PlusDecoder
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.models.trunk import Style
from semiseg_jax.values import Channels


class DenseUpsampling(nnx.Module):
  """A 1x1 to as many channels as there are finer pixels in a pixel, which become these."""

  def __init__(self, channels: int, out_channels: int, factor: int, make: Maker):
    def one_for_all(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
      """At first the finer pixels of a pixel are equal (ICNR, Aitken et al. 2017)."""
      kernel = he_normal_fan_in(rng, (*shape[:3], out_channels))
      return np.repeat(kernel, factor**2, axis=3)

    self.conv = make.conv(channels, out_channels * factor**2, 1, init=one_for_all)
    self.bn = make.norm(out_channels * factor**2)
    self.factor = factor

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """x [B,h,w,C] -> [B,h*factor,w*factor,O], nowhere below 0."""
    x, n = nnx.relu(self.bn(self.conv(x), train)), self.factor
    batch, height, width, _ = x.shape
    x = x.reshape(batch, height, width, -1, n, n).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, height * n, width * n, -1)


class DUCHDCModule(Segmenter, PlusDecoder):
  LOW_FIRST = True

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    dim = self.feature_dim = about.decoder_dim
    self.trunk = about.build_trunk(make)
    self.add_decoder(self.channels, dim, dim, about.rates, make)
    self.upsampling = DenseUpsampling(dim, dim, 2, make)
    self.classifier = linear_head(dim, num_classes, make)[0]
    exact = make._replace(dtype=jnp.float32)
    self.classifier_upsampling = DenseUpsampling(num_classes, num_classes, 4, exact)
    self.representation = linear_head(dim, embedding_dim, make)

  def low_and_high(
    self, features: Features, train: bool, keys: Keys = None
  ) -> tuple[jax.Array, jax.Array]:
    low, *_, high = features
    high = self.upsampling(self.ASPP(high, train, keys), train)
    return self.project(low, train), high[:, : low.shape[1], : low.shape[2]]

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    x, dropped = self.read(features, train, keys)
    logits = self.classifier_upsampling(self.classifier(dropped), train)
    x = resize_bilinear(x, size, align_corners=False)  # for what else is said of each pixel
    return Outputs(logits[:, : size[0], : size[1]], self.embed(x, train), x)


@dataclasses.dataclass(frozen=True)
class DUCHDC(Architecture):
  """Upsampling is learnt; outputs at the size of the image, cut where the original's are larger.

  decoder_dim: channels of ASPP and decoder.
  """

  output_stride: int = 8
  decoder_dim: Channels = 256

  RATES: ClassVar = {8: (6, 12, 18, 24, 36)}
  TRUNKS: ClassVar = OF_SEVERAL_STRIDES
  STYLE = Style(hybrid_dilation=True, init=he_normal_fan_in, norm_bias=1e-4)
  MODULE = DUCHDCModule


NETWORKS = {"duc_hdc": DUCHDC}
