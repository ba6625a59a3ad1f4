"""C3-SemiSeg's projection heads on an encoder's features (Zhou et al. 2021, `models/embedding.py`).

Their outputs [B,h,w,dim] are float32 and not normalised; the loss does that.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from semiseg_jax.models.layers import Maker, normal
from semiseg_jax.models.network import Features, Keys
from semiseg_jax.models.plus import PlusDecoder

_INIT = normal(0.01)


class MLPProjection(nnx.Module):
  """1x1, ReLU, 1x1 on the deepest features, at their stride."""

  def __init__(self, channels: Sequence[int], dim: int, make: Maker):
    make = make._replace(init=_INIT)
    self.conv_1 = make.conv(channels[-1], dim, 1, use_bias=True)
    self.conv_2 = make.conv(dim, dim, 1, use_bias=True, dtype=jnp.float32)

  def __call__(self, features: Features, train: bool, keys: Keys = None) -> jax.Array:
    """features: of the encoder; train and keys: as all projections have them."""
    del train, keys
    return self.conv_2(nnx.relu(self.conv_1(features[-1])))


class ASPPProjection(nnx.Module, PlusDecoder):
  """A small DeepLabV3+ decoder on the deepest and the shallowest features, at the latter's stride.

  The original's works for dim 32 alone, as its projection of ASPP has 32 channels whatever dim.
  """

  RATES, LOW_DIM, DECODER_DIM, LOW_FIRST = (6, 12, 18), 32, 32, True

  def __init__(self, channels: Sequence[int], dim: int, make: Maker):
    make = make._replace(init=_INIT)
    self.add_decoder(channels, dim, self.DECODER_DIM, self.RATES, make)
    self.last = make.conv(self.DECODER_DIM, dim, 1, use_bias=True, dtype=jnp.float32)

  def __call__(self, features: Features, train: bool, keys: Keys = None) -> jax.Array:
    """features: of the encoder, of which the first and the last are read; keys: of dropout."""
    return self.last(self.read(features, train, keys)[1])


PROJECTIONS = {"projection_mlp": MLPProjection, "projection_aspp": ASPPProjection}
