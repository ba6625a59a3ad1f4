"""DPT (Ranftl et al. 2021) on a vision transformer, as UniMatch V2 has it."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.heads import linear_head
from semiseg_jax.models.layers import ConvTranspose, Maker
from semiseg_jax.models.network import Features, Keys, Outputs, Segmenter, Size
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.models.trunk import Trunk
from semiseg_jax.models.vit import PATCH, ViTTrunk
from semiseg_jax.values import Channels


class Enlarge(ConvTranspose):
  """A transposed convolution with a stride of its size, as a product: a pixel makes a square."""

  def __call__(self, x: jax.Array) -> jax.Array:
    x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
    batch, height, width, _ = x.shape
    size, _, out_channels, _ = kernel.shape
    y = jnp.einsum("bhwi,ylci->bhywlc", x, kernel)
    y = y.reshape(batch, height * size, width * size, out_channels)
    return y + self.bias[...].astype(self.dtype)


class Unit(nnx.Module):
  """Two 3x3 convolutions behind ReLUs, and a shortcut from before the first."""

  def __init__(self, dim: int, make: Maker):
    self.conv1 = make.conv(dim, dim, 3, padding=1, use_bias=True)
    self.conv2 = make.conv(dim, dim, 3, padding=1, use_bias=True)

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.conv2(nnx.relu(self.conv1(nnx.relu(x)))) + x


class Fusion(nnx.Module):
  """Joins a shallower map to what comes from the deeper ones and brings both to a size.

  is_first: nothing comes from deeper; its first unit is in the original's files alone.
  """

  def __init__(self, dim: int, make: Maker, is_first: bool = False):
    self.resConfUnit1 = Unit(dim, make._replace(train_convs=not is_first))
    self.resConfUnit2 = Unit(dim, make)
    self.out_conv = make.conv(dim, dim, 1, use_bias=True)

  def __call__(self, x: jax.Array, skip: jax.Array | None, size: Size) -> jax.Array:
    if skip is not None:
      x += self.resConfUnit1(skip)
    x = self.out_conv(self.resConfUnit2(x))  # the original's last: equal, at a quarter of the work
    return resize_bilinear(x, size, align_corners=True)


class DPTModule(Segmenter):
  growth = (PATCH, 8)

  def __init__(self, about: "DPT", num_classes: int, embedding_dim: int | None, make: Maker):
    self.trunk = about.build_trunk(make)
    dim = self.feature_dim = about.decoder_dim
    widths = about.project_dims
    pairs = zip(self.trunk.channels, widths, strict=True)
    self.projects = nnx.List([make.conv(c, width, 1, use_bias=True) for c, width in pairs])
    enlarge = lambda width, size: Enlarge(
      width, width, size, rng=make.rng, stride=size, use_bias=True, dtype=make.dtype
    )
    self.enlarge4, self.enlarge2 = enlarge(widths[0], 4), enlarge(widths[1], 2)
    self.shrink = make.conv(widths[3], widths[3], 3, stride=2, padding=1, use_bias=True)
    for i, width in enumerate(widths, 1):
      setattr(self, f"layer{i}_rn", make.conv(width, dim, 3, padding=1))
      setattr(self, f"refinenet{i}", Fusion(dim, make, is_first=i == 4))
    self.output_conv = make.conv(dim, dim, 3, padding=1, use_bias=True)
    self.classifier = linear_head(dim, num_classes, make)[0]
    self.representation = linear_head(dim, embedding_dim, make)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    """At 8 times the tokens' size."""
    resized = (self.enlarge4, self.enlarge2, _same, self.shrink)
    maps = [
      getattr(self, f"layer{i}_rn")(resize(project(x)))
      for i, (x, project, resize) in enumerate(
        zip(features, self.projects, resized, strict=True), 1
      )
    ]
    height, width = maps[0].shape[1:3]
    sizes = [(2 * height, 2 * width), *(x.shape[1:3] for x in maps[:3])]
    x = self.refinenet4(maps[3], None, sizes[3])
    for i in (3, 2, 1):
      x = getattr(self, f"refinenet{i}")(x, maps[i - 1], sizes[i - 1])
    x = nnx.relu(self.output_conv(x))
    return Outputs(self.classifier(x), self.embed(x, train), x)


def _same(x: jax.Array) -> jax.Array:
  return x


VIT = ViTTrunk()


@dataclasses.dataclass(frozen=True)
class DPT(Architecture):
  """Four maps of tokens brought to four sizes and joined, deep to shallow.

  decoder_dim: channels of the maps where they are joined, and project_dims: before that; None as
  the original has them for the trunk.
  """

  trunk: Trunk = VIT
  output_stride: int = PATCH
  decoder_dim: Channels | None = None
  project_dims: tuple[Channels, ...] | None = None

  RATES: ClassVar = {PATCH: ()}
  TRUNKS: ClassVar = (ViTTrunk,)
  MODULE = DPTModule

  def __post_init__(self):
    super().__post_init__()
    size, channels = self.trunk.size, self.trunk.heads * self.trunk.width
    if self.decoder_dim is None:
      object.__setattr__(self, "decoder_dim", max(channels // size.width, 1))
    if self.project_dims is None:
      dims = tuple(max(int(channels * share), 1) for share in size.shares)
      object.__setattr__(self, "project_dims", dims)
    for key, given in (("trunk.taps", self.trunk.taps), ("project_dims", self.project_dims)):
      if len(given) != 4:
        raise ValueError(f"config.model.{key}={given} should be four numbers")


NETWORKS = {"dpt": DPT}
