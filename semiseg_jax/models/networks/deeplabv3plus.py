"""DeepLabV3+ as the class-wise memory bank has it (Alonso et al. 2021, `model/deeplabv3.py`)."""

import dataclasses

import jax
import jax.numpy as jnp

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import ASPP, LOW_LEVEL_DIM, conv_norm_relu, linear_head
from semiseg_jax.models.layers import Computation, Sequential, dropout
from semiseg_jax.models.network import Outputs, Segmenter, Size
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.models.resnet import MEMORY_BANK


class DeepLabV3PlusModule(Segmenter):
  ASPP_DROPOUT, DECODER_DROPOUT = 0.5, 0.1

  def __init__(
    self, about: Architecture, num_classes: int, embedding_dim: int | None, computation: Computation
  ):
    dim, make = about.decoder_dim, computation.layers(about.STYLE.init)
    self.trunk = about.build_trunk(computation)
    low, *_, high = self.trunk.channels
    self.ASPP = ASPP(high, dim, about.rates, make, self.ASPP_DROPOUT)
    self.project = Sequential(conv_norm_relu(make, low, LOW_LEVEL_DIM, 1))
    first = conv_norm_relu(make, dim + LOW_LEVEL_DIM, dim, 3)
    self.decoder = Sequential([*first, *conv_norm_relu(make, dim, dim, 3)])
    self.feature_dim = dim
    self.classifier = linear_head(dim, num_classes, make)[0]
    self.representation = linear_head(dim, embedding_dim, make)

  def decode(
    self, features: tuple[jax.Array, ...], size: Size, train: bool, keys: jax.Array | None = None
  ) -> Outputs:
    aspp_keys, decoder_keys = _two_keys(keys) if train and keys is not None else (None, None)
    low, *_, high = features
    high = self.ASPP(high, train, aspp_keys)
    low = self.project(low, train)
    high = resize_bilinear(high, low.shape[1:3], align_corners=True)
    x = self.decoder(jnp.concatenate([high, low], axis=-1), train)
    logits = self.classifier(dropout(x, self.DECODER_DROPOUT, decoder_keys))
    return Outputs(logits, self.embed(x, train), x)


def _two_keys(keys: jax.Array) -> jax.Array:
  """Keys [B] as [2,B]."""
  return jax.vmap(jax.random.split, out_axes=1)(keys)


@dataclasses.dataclass(frozen=True)
class DeepLabV3Plus(Architecture):
  """A decoder of two 3x3 convolutions and dropout; outputs at stride 4.

  decoder_dim: channels of ASPP and decoder.
  """

  decoder_dim: int = 256

  STYLE = MEMORY_BANK
  MODULE = DeepLabV3PlusModule


NETWORKS = {"deeplabv3plus": DeepLabV3Plus}
