"""Vision transformers as DINOv2 has them (Oquab et al. 2023), and with registers (Darcet et al.).

The image becomes a grid of tokens at stride 14; features are the tokens behind four blocks, all
normalised by the last layer's norm.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export, lax

from semiseg_jax.models.attention import attention
from semiseg_jax.models.layers import Frozen, Linear, Maker, normal
from semiseg_jax.models.network import Features
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.models.trunk import Style, Trunk, run_block
from semiseg_jax.values import Channels, CountFrom0, Range

PATCH, HEAD_WIDTH = 14, 64
_EPSILON = 1e-6
_CUBIC = -0.75  # the parameter of PyTorch's bicubic kernel
_OFFSET = 0.1  # added to the number of tokens of a side when positions are interpolated
_REGISTERS = 4
_INIT = normal(0.02)


class Size(NamedTuple):
  """depth: blocks; heads: of 64 channels each. taps: of which blocks tokens are features, None for
  the ends of four equal parts. swiglu: the feed-forward's form. width: channels of a DPT decoder,
  as a part of the tokens', and shares: those of its four inputs."""

  depth: int
  heads: int
  taps: tuple[int, ...] | None = None
  swiglu: bool = False
  width: int = 6
  shares: tuple[float, ...] = (1 / 8, 1 / 4, 1 / 2, 1)


SIZES = {
  "tiny": Size(12, 3, width=3),
  "small": Size(12, 6),
  "base": Size(12, 12),
  "large": Size(24, 16, (4, 11, 17, 23), width=4, shares=(1 / 4, 1 / 2, 1, 1)),
  "giant": Size(40, 24, swiglu=True, width=4, shares=(1, 1, 1, 1)),
}
NAMES = (
  "vit_tiny",
  *(f"dinov2_{size}{kind}" for size in list(SIZES)[1:] for kind in ("", "_reg")),
)


class LayerNorm(nnx.Module):
  """Over the channels, in float32, returned in the input's dtype."""

  def __init__(self, channels: int):
    self.scale = nnx.Param(np.ones(channels, np.float32))
    self.bias = nnx.Param(np.zeros(channels, np.float32))

  def __call__(self, x: jax.Array) -> jax.Array:
    values = x.astype(jnp.float32)
    values -= values.mean(-1, keepdims=True)
    values *= lax.rsqrt(jnp.square(values).mean(-1, keepdims=True) + _EPSILON)
    return (values * self.scale[...] + self.bias[...]).astype(x.dtype)


class LayerScale(nnx.Module):
  def __init__(self, channels: int):
    self.gamma = nnx.Param(np.ones(channels, np.float32))

  def __call__(self, x: jax.Array) -> jax.Array:
    return x * self.gamma[...].astype(x.dtype)


def linear(channels: int, out_channels: int, make: Maker) -> Linear:
  """With DINOv2's initialisation."""
  layer = Linear(channels, out_channels, rng=make.rng, dtype=make.dtype)
  layer.kernel = nnx.Param(_INIT(make.rng, (channels, out_channels)))
  layer.bias = nnx.Param(np.zeros(out_channels, np.float32))
  return layer


class Attention(nnx.Module):
  def __init__(self, channels: int, heads: int, make: Maker):
    self.qkv = linear(channels, 3 * channels, make)
    self.proj = linear(channels, channels, make)
    self.heads = heads

  def __call__(self, x: jax.Array) -> jax.Array:
    parts = [y.reshape(*y.shape[:2], self.heads, -1) for y in jnp.split(self.qkv(x), 3, -1)]
    return self.proj(attention(*parts).reshape(x.shape))


class MLP(nnx.Module):
  def __init__(self, channels: int, make: Maker):
    self.fc1 = linear(channels, 4 * channels, make)
    self.fc2 = linear(4 * channels, channels, make)

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class SwiGLU(nnx.Module):
  """Gated by SiLU (Shazeer 2020); two thirds of the MLP's width, raised to a multiple of 8."""

  def __init__(self, channels: int, make: Maker):
    hidden = (int(4 * channels * 2 / 3) + 7) // 8 * 8
    self.w12 = linear(channels, 2 * hidden, make)
    self.w3 = linear(hidden, channels, make)

  def __call__(self, x: jax.Array) -> jax.Array:
    gate, value = jnp.split(self.w12(x), 2, -1)
    return self.w3(jax.nn.silu(gate) * value)


class Block(nnx.Module):
  def __init__(self, channels: int, heads: int, feed_forward: Callable, make: Maker):
    self.norm1, self.norm2 = LayerNorm(channels), LayerNorm(channels)
    self.attn = Attention(channels, heads, make)
    self.ls1, self.ls2 = LayerScale(channels), LayerScale(channels)
    self.mlp = feed_forward(channels, make)

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    x += self.ls1(self.attn(self.norm1(x)))
    return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nnx.Module):
  def __init__(self, channels: int, make: Maker):
    self.proj = make.conv(3, channels, PATCH, stride=PATCH, use_bias=True)

  def __call__(self, images: jax.Array) -> jax.Array:
    return self.proj(images)


class ViT(nnx.Module):
  """channels: of the four features. mask_token is the pretraining's, and there for its files."""

  def __init__(self, about: "ViTTrunk", make: Maker):
    size, channels = about.size, about.heads * about.width
    self.cls_token = nnx.Param(_INIT(make.rng, (1, 1, channels)))
    self.pos_embed = nnx.Param(_INIT(make.rng, (1, 1 + about.grid**2, channels)))
    self.mask_token = Frozen(np.zeros((1, channels), np.float32))
    registers = _INIT(make.rng, (1, _REGISTERS, channels)) if about.has_registers else None
    self.register_tokens = None if registers is None else nnx.Param(registers)
    self.patch_embed = PatchEmbed(channels, make)
    kind = SwiGLU if size.swiglu else MLP
    blocks = [Block(channels, about.heads, kind, make) for _ in range(about.depth)]
    self.blocks = nnx.List(blocks)
    self.norm = LayerNorm(channels)
    self.channels = (channels,) * len(about.taps)
    self.taps, self.remat = about.taps, make.remat

  def __call__(self, images: jax.Array, train: bool) -> Features:
    """Features [B,h,w,C] of images [B,H,W,3], normalised, which are first resized to the nearest
    multiples of 14, halves up."""
    sides = tuple(PATCH * tokens_of(side) for side in images.shape[1:3])
    patches = self.patch_embed(resize_bilinear(images, sides, align_corners=True))
    batch, *grid, channels = patches.shape
    x = patches.reshape(batch, -1, channels)
    x = jnp.concatenate([self._repeated(self.cls_token, x), x], 1)
    x += self._positions(tuple(grid)).astype(x.dtype)
    if self.register_tokens is not None:
      x = jnp.concatenate([x[:, :1], self._repeated(self.register_tokens, x), x[:, 1:]], 1)
    features, others = [], x.shape[1] - patches.shape[1] * patches.shape[2]
    for i, block in enumerate(self.blocks):
      x = run_block(block, x, train, self.remat)
      if i in self.taps:
        features.append(self.norm(x)[:, others:].reshape(batch, *grid, channels))
    return tuple(features)

  def _repeated(self, tokens: nnx.Param, x: jax.Array) -> jax.Array:
    return jnp.broadcast_to(tokens[...], (x.shape[0], *tokens.shape[1:])).astype(x.dtype)

  def _positions(self, grid: tuple[int, int]) -> jax.Array:
    resized = resized_positions if self.register_tokens is None else antialiased_positions
    return positions(self.pos_embed[...], grid, resized)


def tokens_of(side: int) -> int:
  """Of a side of an image, at least one."""
  count = (side + PATCH // 2) // PATCH
  return count if export.is_symbolic_dim(count) else max(count, 1)


def positions(table: jax.Array, grid: tuple[int, int], resized: Callable) -> jax.Array:
  """[1,1+h*w,C], a learnt table [1,1+n*n,C] for a grid (h, w) by `resized`, the class token first;
  float32. The grid that it was learnt for is left as it is."""
  side = int((table.shape[1] - 1) ** 0.5)
  if tuple(grid) == (side, side):
    return table
  own = jnp.asarray(table[0, 1:]).reshape(side, side, -1)
  patches = resized(own, grid)
  if any(map(export.is_symbolic_dim, grid)):  # which may turn out to be that one
    rows, columns = (jnp.minimum(jnp.arange(count), side - 1) for count in grid)
    is_own = jnp.logical_and(*(jnp.asarray(count) == side for count in grid))
    patches = jnp.where(is_own, own[rows][:, columns], patches)
  return jnp.concatenate([table[0, :1], patches.reshape(-1, table.shape[-1])])[None]


def resized_positions(patches: jax.Array, grid: tuple[int, int]) -> jax.Array:
  """[n,n,C] -> [h,w,C], bicubic as PyTorch has it for a factor of (h + 0.1) / n."""
  rows, columns = (cubic_matrix(patches.shape[0], count) for count in grid)
  product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
  return product("Ww,Hwc->HWc", columns, product("Hh,hwc->Hwc", rows, patches))


def antialiased_positions(patches: jax.Array, grid: tuple[int, int]) -> jax.Array:
  """[n,n,C] -> [h,w,C], as DINOv2 with registers."""
  return jax.image.resize(patches, (*grid, patches.shape[-1]), "cubic", antialias=True)


def cubic_matrix(n_in: int, n_out: int) -> np.ndarray | jax.Array:
  """float32 [n_out,n_in]: weights of each output on four inputs; those beyond an end are the
  end's. The step between outputs is n_in / (n_out + 0.1)."""
  xp = jnp if export.is_symbolic_dim(n_out) else np
  place = (xp.arange(n_out) + 0.5) * (n_in / (n_out + _OFFSET)) - 0.5
  low = xp.floor(place)
  weights = 0.0
  for step in range(-1, 3):
    source = xp.clip(low + step, 0, n_in - 1)
    is_source = source[:, None] == xp.arange(n_in)
    weights = weights + is_source * _cubic(xp, abs(place - low - step))[:, None]
  return weights.astype(np.float32)


def _cubic(xp, distance):
  """Keys' kernel within 2."""
  near = (_CUBIC + 2) * distance**3 - (_CUBIC + 3) * distance**2 + 1
  far = _CUBIC * (distance**3 - 5 * distance**2 + 8 * distance - 4)
  return xp.where(distance <= 1, near, far)


@dataclasses.dataclass(frozen=True)
class ViTTrunk(Trunk):
  """A vision transformer as a config describes it; its stride is 14, whatever the network's.

  name: of NAMES, which says the rest: vit_tiny, for training from scratch, or DINOv2's. width:
  channels of a head. depth: blocks, heads: of each, taps: the blocks, from 0, whose tokens are
  features; None as the name has them. grid: tokens of a side for which positions are learnt, 37 for
  crops of 518. Raises ValueError for taps that are not blocks in their order.
  """

  name: str = "dinov2_small"
  width: Channels = HEAD_WIDTH
  depth: Annotated[int, Range(1, 200)] | None = None
  heads: Annotated[int, Range(1, 256)] | None = None
  taps: tuple[CountFrom0, ...] | None = None
  grid: Annotated[int, Range(1, 1000)] = 37

  ONE_STRIDE: ClassVar = True

  def __post_init__(self):
    depth = self.size.depth if self.depth is None else self.depth
    taps = self.size.taps if depth == self.size.depth else None
    taps = taps or tuple((i + 1) * depth // 4 - 1 for i in range(4))
    resolved = {"depth": depth, "heads": self.size.heads, "taps": taps}
    for key, value in resolved.items():
      if getattr(self, key) is None:
        object.__setattr__(self, key, value)
    if not self.taps or list(self.taps) != sorted(set(self.taps) & set(range(self.depth))):
      raise ValueError(
        f"config.model.trunk.taps={self.taps} are not some of {self.depth} blocks, in their order"
      )

  @property
  def size(self) -> Size:
    return SIZES[self.name.removesuffix("_reg").rpartition("_")[2]]

  @property
  def has_registers(self) -> bool:
    return self.name.endswith("_reg")

  def build(self, output_stride: int, style: Style, make: Maker) -> ViT:
    """Its initialisation is its own."""
    return ViT(self, make._replace(init=None))
