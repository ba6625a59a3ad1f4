"""FCN-8s (Long et al. 2015), as pytorch-segmentation has it (its `models/fcn.py`)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import linear_head
from semiseg_jax.models.layers import Maker, dropout, split_keys
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.trunk import Style, Trunk
from semiseg_jax.models.vgg import VGGTrunk
from semiseg_jax.values import Channels

MARGIN = 99  # around the image, beside the first convolution's 1, so that small ones reach the end
CUTS = (5, 9, 31)  # what the margin has become at strides 16, 8 and 1
FACTORS = (0.01, 0.0001)  # of the stages at strides 16 and 8: the authors' learning rates for them


def bilinear(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  """The kernel [k,k,C,C] that makes each channel larger by interpolation; nothing is drawn."""
  size = shape[0]
  factor = (size + 1) // 2
  place = np.abs(np.arange(size) - (factor - 1 if size % 2 else factor - 0.5))
  line = 1 - place / factor
  return (np.outer(line, line)[..., None, None] * np.eye(shape[2])).astype(np.float32)


class FCN8Module(Segmenter):
  """Scores of three stages, each made larger and cut to the next, added up."""

  DROPOUT = 0.5

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk, self.representation = about.build_trunk(make), None
    third, fourth, fifth = self.channels
    dim = about.decoder_dim
    self.conv6 = make.conv(fifth, dim, 7, use_bias=True)
    self.conv7 = make.conv(dim, dim, 1, use_bias=True)
    self.classifier = linear_head(dim, num_classes, make)[0]
    self.adj_pool4 = linear_head(fourth, num_classes, make)[0]
    self.adj_pool3 = linear_head(third, num_classes, make)[0]
    fixed = {"init": bilinear, "trained": False, "dtype": jnp.float32}
    self.up_output = make.conv_transpose(num_classes, num_classes, 4, **fixed)
    self.up_pool4_out = make.conv_transpose(num_classes, num_classes, 4, **fixed)
    self.up_final = make.conv_transpose(num_classes, num_classes, 16, stride=8, **fixed)

  @property
  def channels(self) -> tuple[int, ...]:
    return self.trunk.channels[2:]

  def encode(self, images: jax.Array, train: bool, keys: Keys = None) -> Features:
    """The pools of the stages 3, 4 and 5."""
    x = jnp.pad(images, [(0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)])
    return self.trunk(x, train)[2:]

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    third, fourth, x = features
    first_keys, second_keys = split_keys(keys if train else None)
    x = dropout(nnx.relu(self.conv6(x)), self.DROPOUT, first_keys)
    x = dropout(nnx.relu(self.conv7(x)), self.DROPOUT, second_keys)
    x = self.up_output(self.classifier(x))
    scores = self.adj_pool4(FACTORS[0] * fourth), self.adj_pool3(FACTORS[1] * third)
    x = self.up_pool4_out(x + _cut(scores[0], CUTS[0], x.shape[1:3]))
    x = self.up_final(x + _cut(scores[1], CUTS[1], x.shape[1:3]))
    return Outputs(_cut(x, CUTS[2], size))


def _cut(x: jax.Array, start: int, size: Size) -> jax.Array:
  return x[:, start : start + size[0], start : start + size[1]]


VGG16 = VGGTrunk()


@dataclasses.dataclass(frozen=True)
class FCN8(Architecture):
  """A VGG as a convolution; outputs at the size of the image.

  decoder_dim: channels of what were VGG's linear layers.
  """

  trunk: Trunk = VGG16
  output_stride: int = 32
  decoder_dim: Channels = 4096

  RATES: ClassVar = {32: ()}
  TRUNKS: ClassVar = (VGGTrunk,)
  STYLE = Style(trunk_init=None, ceil_pool=True)
  MODULE = FCN8Module


NETWORKS = {"fcn8": FCN8}
