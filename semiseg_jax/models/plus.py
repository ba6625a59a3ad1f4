"""Parts of DeepLabV3+ (Chen et al. 2018) for modules to inherit."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from semiseg_jax.models.heads import ASPP, conv_norm_relu
from semiseg_jax.models.layers import Maker, Sequential, dropout, split_keys
from semiseg_jax.models.network import Features, Keys
from semiseg_jax.models.resize import resize_bilinear


class LowAndHigh:
  """The shallowest features, projected, and the deepest ones behind ASPP, at the former's size."""

  LOW_DIM, ASPP_DROPOUT = 48, 0.0

  def add_low_and_high(
    self, channels: Sequence[int], dim: int, rates: Sequence[int], make: Maker
  ) -> None:
    """channels: of the features, shallow to deep; dim: of ASPP."""
    low, *_, high = channels
    self.ASPP = ASPP(high, dim, rates, make, self.ASPP_DROPOUT)
    self.project = Sequential(conv_norm_relu(make, low, self.LOW_DIM, 1))

  def low_and_high(
    self, features: Features, train: bool, keys: Keys = None
  ) -> tuple[jax.Array, jax.Array]:
    low, *_, high = features
    high = self.ASPP(high, train, keys)
    low = self.project(low, train)
    return low, resize_bilinear(high, low.shape[1:3], align_corners=True)


class PlusDecoder(LowAndHigh):
  """Both joined, and two 3x3 convolutions with dropout; LOW_FIRST: the order of the two."""

  ASPP_DROPOUT, DECODER_DROPOUT = 0.5, 0.1
  LOW_FIRST = False

  def add_decoder(
    self, channels: Sequence[int], aspp_dim: int, dim: int, rates: Sequence[int], make: Maker
  ) -> None:
    """channels: of the features, shallow to deep; dim: of the result."""
    self.add_low_and_high(channels, aspp_dim, rates, make)
    first = conv_norm_relu(make, aspp_dim + self.LOW_DIM, dim, 3)
    self.decoder = Sequential([*first, *conv_norm_relu(make, dim, dim, 3)])

  def read(self, features: Features, train: bool, keys: Keys = None) -> tuple[jax.Array, jax.Array]:
    """[B,h,w,dim] at the shallowest features' stride, before and after the last dropout."""
    aspp_keys, decoder_keys = split_keys(keys if train else None)
    low, high = self.low_and_high(features, train, aspp_keys)
    parts = (low, high) if self.LOW_FIRST else (high, low)
    x = self.decoder(jnp.concatenate(parts, axis=-1), train)
    return x, dropout(x, self.DECODER_DROPOUT, decoder_keys)
