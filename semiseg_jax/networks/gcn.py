"""Global convolutional network (Peng et al. 2017), as pytorch-segmentation has it (`gcn.py`)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from semiseg_jax.models.architecture import OF_SEVERAL_STRIDES, Architecture
from semiseg_jax.models.heads import linear_head
from semiseg_jax.models.layers import Maker, he_normal_fan_in
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.models.trunk import Style
from semiseg_jax.values import OddSide


class GlobalConv(nnx.Module):
  """A large kernel as two pairs of flat and tall ones, added up."""

  def __init__(self, channels: int, out_channels: int, size: int, make: Maker):
    tall, flat = {"padding": (size // 2, 0)}, {"padding": (0, size // 2)}
    conv = lambda inputs, shape, pads: make.conv(inputs, out_channels, shape, use_bias=True, **pads)
    self.conv11, self.conv12 = (
      conv(channels, (size, 1), tall),
      conv(out_channels, (1, size), flat),
    )
    self.conv21, self.conv22 = (
      conv(channels, (1, size), flat),
      conv(out_channels, (size, 1), tall),
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.conv12(self.conv11(x)) + self.conv22(self.conv21(x))


class BoundaryRefinement(nnx.Module):
  """x and two 3x3 convolutions of it; its BatchNorms are in the original's files and not used."""

  def __init__(self, channels: int, make: Maker):
    conv = lambda: make.conv(channels, channels, 3, padding=1, use_bias=True)
    frozen = make._replace(train_norms=False)
    self.bn1, self.conv1 = frozen.norm(channels), conv()
    self.bn2, self.conv2 = frozen.norm(channels), conv()

  def __call__(self, x: jax.Array) -> jax.Array:
    return x + self.conv2(nnx.relu(self.conv1(x)))


class GCNModule(Segmenter):
  """Scores of each stage, refined and added up from the deepest to the shallowest."""

  def __init__(self, about: Architecture, num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    for i, channels in enumerate(self.channels, start=1):
      setattr(self, f"gcn{i}", GlobalConv(channels, num_classes, about.num_filters, make))
    for i in range(1, 10):
      setattr(self, f"br{i}", BoundaryRefinement(num_classes, make))
    self.learns_upsampling = about.use_deconv
    if about.use_deconv:
      options = {"padding": 1, "extra": 1}
      for i in range(1, 6):
        setattr(self, f"decon{i}", make.conv_transpose(num_classes, num_classes, 3, **options))
    self.feature_dim = num_classes
    self.classifier = linear_head(num_classes, num_classes, make)[0]
    self.representation = linear_head(num_classes, embedding_dim, make)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    first, second, third, x = (
      getattr(self, f"br{i}")(getattr(self, f"gcn{i}")(feature))
      for i, feature in enumerate(features, start=1)
    )
    # a learnt step is padded or cut above and to the left where it does not fit
    x = third + self.grown(x, 4, third.shape[1:3])
    x = second + self.grown(self.br5(x), 3, second.shape[1:3])
    x = first + self.grown(self.br6(x), 2, first.shape[1:3])
    stem = tuple(-(-n // 2) for n in size)
    # the stem's output has the first stage's size: resizing to it is nothing, transposing is not
    x = self.br7(x)
    x = self.br8(self.grown(x, 1, stem) if self.learns_upsampling else x)
    x = self.br9(self.grown(x, 5, size))
    return Outputs(self.classifier(x), self.embed(x, train), x)

  def grown(self, x: jax.Array, step: int, size: Size) -> jax.Array:
    """At a larger size, learnt or bilinear."""
    if not self.learns_upsampling:
      return resize_bilinear(x, size, align_corners=True)
    y = getattr(self, f"decon{step}")(x)
    rows, columns = (m - n for m, n in zip(y.shape[1:3], size, strict=True))  # too many
    y = y[:, max(rows, 0) :, max(columns, 0) :]
    return jnp.pad(y, [(0, 0), (max(-rows, 0), 0), (max(-columns, 0), 0), (0, 0)])


@dataclasses.dataclass(frozen=True)
class GCN(Architecture):
  """Large kernels on each stage of a trunk; outputs at the size of the image.

  num_filters: the large kernels' side, odd. use_deconv: upsampling is learnt.
  """

  output_stride: int = 32
  num_filters: OddSide = 11
  use_deconv: bool = False

  RATES: ClassVar = {32: (), 16: (), 8: ()}
  TRUNKS: ClassVar = OF_SEVERAL_STRIDES
  STYLE = Style(init=he_normal_fan_in)
  MODULE = GCNModule


NETWORKS = {"gcn": GCN}
