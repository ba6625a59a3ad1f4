"""ENet's encoder (Paszke et al. 2016), and the block that all of ENet is made of.

Source: pytorch-segmentation, `models/enet.py`.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from semiseg_jax.models.layers import Maker, PReLU, Sequential, dropout, max_pool
from semiseg_jax.models.network import Features, Keys
from semiseg_jax.models.trunk import Style, Trunk
from semiseg_jax.models.unpool import max_pool_places, max_unpool
from semiseg_jax.values import Range

# Of the encoder's second stage after its first block, and of the third's: dilations of the 3x3, or
# "asymmetric", a 1x5 and a 5x1 in its place.
MIDDLES = (1, 2, "asymmetric", 4, 1, 8, "asymmetric", 16)


class Bottleneck(nnx.Module):
  """1x1 to a quarter of the channels, something wider, 1x1 back, and a way past them.

  kind: "down" (half the size; more channels by zeros), "up" (back to where the maxima were),
  "asymmetric", or the dilation of the 3x3. learns_slopes: PReLU instead of ReLU.
  """

  def __init__(
    self,
    channels: int,
    out_channels: int,
    kind: int | str,
    rate: float,
    learns_slopes: bool,
    make: Maker,
  ):
    inner, act = channels // 4, PReLU if learns_slopes else lambda: nnx.relu
    self.kind, self.rate, self.grown = kind, rate, out_channels - channels
    if kind == "up":
      self.spatial_conv = make.conv(channels, out_channels, 1)
      self.bn_up = make.norm(out_channels)
    size, step = (2, 2) if kind == "down" else (1, 1)
    self.conv1, self.bn1 = make.conv(channels, inner, size, stride=step), make.norm(inner)
    self.conv2, self.bn2 = _wider(inner, kind, act, make), make.norm(inner)
    self.conv3, self.bn3 = make.conv(inner, out_channels, 1), make.norm(out_channels)
    self.prelu1, self.prelu2, self.prelu3, self.prelu_out = act(), act(), act(), act()

  def __call__(
    self, x: jax.Array, train: bool, keys: Keys, past: jax.Array | None = None
  ) -> jax.Array:
    """past: what goes past the convolutions, x itself without it."""
    past, (height, width) = x if past is None else past, x.shape[1:3]
    if self.kind == "down":
      x = jnp.pad(x, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)])
    y = self.prelu1(self.bn1(self.conv1(x), train))
    y = self.conv2(y, train) if isinstance(self.conv2, Sequential) else self.conv2(y)
    y = self.bn3(self.conv3(self.prelu2(self.bn2(y, train))), train)
    y = dropout(self.prelu3(y), self.rate, keys, whole_channels=True)
    return self.prelu_out(past + y[:, : past.shape[1], : past.shape[2]])

  def down(self, x: jax.Array, train: bool, keys: Keys) -> tuple[jax.Array, jax.Array]:
    """At half the size, past it x's maxima; and the places of these."""
    pooled, place = max_pool_places(x, ceil_mode=True)
    return self(x, train, keys, jnp.pad(pooled, [(0, 0)] * 3 + [(0, self.grown)])), place

  def up(
    self, x: jax.Array, train: bool, keys: Keys, place: jax.Array, size: tuple[int, int]
  ) -> jax.Array:
    """At a larger size, past it x at the places of the maxima."""
    past = max_unpool(self.bn_up(self.spatial_conv(x), train), place, size)
    return self(x, train, keys, past)


def _wider(channels: int, kind: int | str, act, make: Maker) -> nnx.Module:
  if kind == "up":
    return make.conv_transpose(channels, channels, 3, padding=1, extra=1)
  if kind == "asymmetric":
    flat = make.conv(channels, channels, (1, 5), padding=(0, 2), use_bias=True)
    tall = make.conv(channels, channels, (5, 1), padding=(2, 0), use_bias=True)
    return Sequential([flat, make.norm(channels), act(), tall])
  dilation = 1 if kind == "down" else kind
  return make.conv(channels, channels, 3, padding=dilation, dilation=dilation)


class Stem(nnx.Module):
  """A 3x3 beside a max-pool, at stride 2."""

  def __init__(self, width: int, make: Maker):
    self.conv = make.conv(3, width - 3, 3, stride=2, padding=1, use_bias=True)
    self.bn, self.prelu = make.norm(width), PReLU(width)

  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    pooled = max_pool(images.astype(self.conv.dtype), 2, 2, ceil_mode=True)
    return self.prelu(self.bn(jnp.concatenate([pooled, self.conv(images)], axis=-1), train))


class ENetEncoder(nnx.Module):
  """The first three of five stages, at strides 4 and 8.

  Its features are the places of the maxima of both poolings, and the last stage's output. The
  blocks' names are those of the paper: stage, number.
  """

  def __init__(self, width: int, make: Maker):
    self.channels = (width, 4 * width, 8 * width)
    self.initial = Stem(width, make)
    add = lambda name, *about: setattr(self, f"bottleneck{name}", Bottleneck(*about, True, make))
    add(10, width, 4 * width, "down", 0.01)
    for i in range(11, 15):
      add(i, 4 * width, 4 * width, 1, 0.01)
    add(20, 4 * width, 8 * width, "down", 0.1)
    for stage in (20, 30):
      for i, kind in enumerate(MIDDLES, start=1):
        add(stage + i, 8 * width, 8 * width, kind, 0.1)
    self.names = tuple(range(10, 15)) + tuple(range(20, 29)) + tuple(range(31, 39))

  def __call__(self, images: jax.Array, train: bool, keys: Keys = None) -> Features:
    x, places = self.initial(images, train), []
    for name in self.names:
      block, block_key = getattr(self, f"bottleneck{name}"), block_keys(keys, name)
      if block.kind == "down":
        x, place = block.down(x, train, block_key)
        places.append(place)
      else:
        x = block(x, train, block_key)
    return (*places, x)


def block_keys(keys: Keys, name: int) -> Keys:
  """Of the dropout in one block; None without keys."""
  return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, name))(keys)


@dataclasses.dataclass(frozen=True)
class ENetTrunk(Trunk):
  """ENet's encoder as a config describes it; nothing of it is recomputed (remat)."""

  name: str = "enet"
  width: Annotated[int, Range(4, 65_536)] = 16

  def build(self, output_stride: int, style: Style, make: Maker) -> ENetEncoder:
    return ENetEncoder(self.width, make._replace(init=style.trunk_init))
