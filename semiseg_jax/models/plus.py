"""DeepLabV3+'s decoder of two 3x3 convolutions (Chen et al. 2018), for modules to inherit."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from semiseg_jax.models.heads import ASPP, conv_norm_relu
from semiseg_jax.models.layers import Make, Sequential, dropout, two_keys
from semiseg_jax.models.resize import resize_bilinear


class PlusDecoder:
  """ASPP on the deepest features, joined with the shallowest, and two 3x3 with dropout."""

  ASPP_DROPOUT, DECODER_DROPOUT = 0.5, 0.1

  def add_decoder(
    self,
    channels: Sequence[int],
    rates: Sequence[int],
    make: Make,
    *,
    aspp_dim: int,
    low_dim: int,
    dim: int,
    low_first: bool,
  ) -> None:
    """channels: of the features, shallow to deep; dims: of ASPP, shallow features and result;
    low_first: the order in which the two are joined.
    """
    low, *_, high = channels
    self.ASPP = ASPP(high, aspp_dim, rates, make, self.ASPP_DROPOUT)
    self.project = Sequential(conv_norm_relu(make, low, low_dim, 1))
    first = conv_norm_relu(make, aspp_dim + low_dim, dim, 3)
    self.low_first = low_first
    self.decoder = Sequential([*first, *conv_norm_relu(make, dim, dim, 3)])

  def read(
    self, features: Sequence[jax.Array], train: bool, keys: jax.Array | None
  ) -> tuple[jax.Array, jax.Array]:
    """[B,h,w,dim] at the shallowest features' stride, before and after the last dropout."""
    aspp_keys, decoder_keys = two_keys(keys if train else None)
    low, *_, high = features
    high = self.ASPP(high, train, aspp_keys)
    low = self.project(low, train)
    high = resize_bilinear(high, low.shape[1:3], align_corners=True)
    parts = (low, high) if self.low_first else (high, low)
    x = self.decoder(jnp.concatenate(parts, axis=-1), train)
    return x, dropout(x, self.DECODER_DROPOUT, decoder_keys)
