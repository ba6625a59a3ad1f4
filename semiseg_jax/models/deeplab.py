"""DeepLabV2 (Chen et al. 2017), V3 (2017) and V3+ (2018) as the originals of the methods have them,
and the classifier of ImageNet whose weights they all start from.

All are called with images [B,H,W,3], normalised, and keys [B], one for each image, which drop
activations in training where the network does that; without keys nothing is dropped.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from semiseg_jax.models.heads import ASPP, SummedConvs, conv_norm_relu, pixel_head
from semiseg_jax.models.layers import Linear, Make, Sequential, dropout
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.models.resnet import ResNet

LOW_LEVEL_DIM = 48  # of DeepLabV3+'s features at stride 4


class Outputs(NamedTuple):
  """What a network says of each pixel, at its own stride.

  logits [B,h,w,K] and embedding [B,h,w,D], not normalised: float32. features [B,h,w,C]: what the
  classifier reads, in the network's compute dtype, before any dropout. aux_logits [B,h,w,K]: of a
  second classifier on an earlier stage.
  """

  logits: jax.Array
  embedding: jax.Array | None = None
  features: jax.Array | None = None
  aux_logits: jax.Array | None = None


class ResNetClassifier(nnx.Module):
  """A ResNet for whole images: logits [B,1,1,K]. It is there for its weights."""

  def __init__(self, trunk: ResNet, num_classes: int, rng: np.random.Generator):
    self.resnet = trunk
    self.feature_dim = trunk.channels
    self.classifier = Linear(trunk.channels, num_classes, rng=rng)

  def __call__(self, images: jax.Array, train: bool) -> Outputs:
    x = self.resnet(images, train).high
    features = x.mean((1, 2), keepdims=True, dtype=jnp.float32)
    return Outputs(self.classifier(features), features=features)


class DeepLabV2(nnx.Module):
  """The trunk, and a classifier of dilated convolutions; outputs at the trunk's stride."""

  def __init__(
    self,
    trunk: ResNet,
    num_classes: int,
    embedding_dim: int | None,
    rates: Sequence[int],
    branches: int,
    make: Make,
  ):
    self.resnet = trunk
    self.feature_dim = trunk.channels
    self.classifier = SummedConvs(trunk.channels, num_classes, rates, branches, make)
    self.representation = _linear_head(trunk.channels, embedding_dim, make)

  def __call__(self, images: jax.Array, train: bool, keys: jax.Array | None = None) -> Outputs:
    x = self.resnet(images, train).high
    embedding = None if self.representation is None else self.representation(x, train)
    return Outputs(self.classifier(x), embedding, x)


class DeepLabV3(nnx.Module):
  """Dilated trunk, ASPP, one 3x3; outputs at the trunk's stride, as torchvision has it.

  aux: with a second classifier on stage 3. It comes along with published weights; no method here
  learns with it, so it is frozen, and left out in training.
  """

  DROPOUT = 0.5

  def __init__(
    self,
    trunk: ResNet,
    num_classes: int,
    embedding_dim: int | None,
    rates: Sequence[int],
    decoder_dim: int,
    make: Make,
    aux: bool,
  ):
    self.resnet = trunk
    self.ASPP = ASPP(trunk.channels, decoder_dim, rates, make)
    self.feature_dim = decoder_dim
    self.classifier = pixel_head(decoder_dim, decoder_dim, num_classes, make)
    self.representation = _linear_head(decoder_dim, embedding_dim, make)
    middle = trunk.channels // 2
    self.aux_classifier = (
      pixel_head(middle, middle // 4, num_classes, make.frozen()) if aux else None
    )

  def __call__(self, images: jax.Array, train: bool, keys: jax.Array | None = None) -> Outputs:
    _, middle, high = self.resnet(images, train)
    x = self.ASPP(high, train)
    logits = self.classifier(dropout(x, self.DROPOUT, keys if train else None), train)
    embedding = None if self.representation is None else self.representation(x, train)
    has_aux = self.aux_classifier is not None and not train
    return Outputs(logits, embedding, x, self.aux_classifier(middle, False) if has_aux else None)


class DeepLabV3P(nnx.Module):
  """ReCo's DeepLabV3+: outputs at stride 4 (side n gives ceil(n/4)); one 3x3 in each head."""

  def __init__(
    self,
    trunk: ResNet,
    num_classes: int,
    embedding_dim: int | None,
    rates: Sequence[int],
    decoder_dim: int,
    make: Make,
  ):
    self.resnet = trunk
    self.ASPP = ASPP(trunk.channels, decoder_dim, rates, make)
    self.project = Sequential(conv_norm_relu(make, trunk.low_channels, LOW_LEVEL_DIM, 1))
    self.feature_dim = LOW_LEVEL_DIM + decoder_dim
    self.classifier = pixel_head(self.feature_dim, decoder_dim, num_classes, make)
    self.representation = (
      pixel_head(self.feature_dim, decoder_dim, embedding_dim, make) if embedding_dim else None
    )

  def __call__(self, images: jax.Array, train: bool, keys: jax.Array | None = None) -> Outputs:
    low, _, high = self.resnet(images, train)
    high = self.ASPP(high, train)
    low = self.project(low, train)
    high = resize_bilinear(high, low.shape[1:3], align_corners=True)
    x = jnp.concatenate([low, high], axis=-1)
    embedding = None if self.representation is None else self.representation(x, train)
    return Outputs(self.classifier(x, train), embedding, x)


class DeepLabV3Plus(nnx.Module):
  """DeepLabV3+ with a decoder of two 3x3 convolutions and dropout; outputs at stride 4.

  Source: Alonso et al. 2021, `model/deeplabv3.py`.
  """

  ASPP_DROPOUT, DECODER_DROPOUT = 0.5, 0.1

  def __init__(
    self,
    trunk: ResNet,
    num_classes: int,
    embedding_dim: int | None,
    rates: Sequence[int],
    decoder_dim: int,
    make: Make,
  ):
    self.resnet = trunk
    self.ASPP = ASPP(trunk.channels, decoder_dim, rates, make, self.ASPP_DROPOUT)
    self.project = Sequential(conv_norm_relu(make, trunk.low_channels, LOW_LEVEL_DIM, 1))
    self.decoder = Sequential(
      [
        *conv_norm_relu(make, decoder_dim + LOW_LEVEL_DIM, decoder_dim, 3),
        *conv_norm_relu(make, decoder_dim, decoder_dim, 3),
      ]
    )
    self.feature_dim = decoder_dim
    self.classifier = make.conv(decoder_dim, num_classes, 1, use_bias=True, dtype=jnp.float32)
    self.representation = _linear_head(decoder_dim, embedding_dim, make)

  def __call__(self, images: jax.Array, train: bool, keys: jax.Array | None = None) -> Outputs:
    aspp_keys, decoder_keys = _two_keys(keys) if train and keys is not None else (None, None)
    low, _, high = self.resnet(images, train)
    high = self.ASPP(high, train, aspp_keys)
    low = self.project(low, train)
    high = resize_bilinear(high, low.shape[1:3], align_corners=True)
    x = self.decoder(jnp.concatenate([high, low], axis=-1), train)
    logits = self.classifier(dropout(x, self.DECODER_DROPOUT, decoder_keys))
    embedding = None if self.representation is None else self.representation(x, train)
    return Outputs(logits, embedding, x)


def _linear_head(channels: int, out_channels: int | None, make: Make) -> Sequential | None:
  """A 1x1 convolution with bias that works and returns in float32."""
  if not out_channels:
    return None
  return Sequential([make.conv(channels, out_channels, 1, use_bias=True, dtype=jnp.float32)])


def _two_keys(keys: jax.Array) -> jax.Array:
  """Keys [B] as [2,B]."""
  return jax.vmap(jax.random.split, out_axes=1)(keys)
