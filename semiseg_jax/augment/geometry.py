"""Rescaling, padding, cropping and flipping, equal to the 8-bit results of Pillow.

Every image of a batch has its own size; shapes stay static because only the crop is computed:
output pixel -> (crop offset) -> padded -> (reflection) -> resized -> (filter taps) -> input pixels.
All arithmetic is in whole numbers, so every backend gives the same levels. Sides up to 4096.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semiseg_jax.labels import IGNORE

_COEFFICIENT_BITS = 22  # Pillow's fixed point for resampling 8-bit images
_HALF_BITS = _COEFFICIENT_BITS // 2
_MAX_TAPS = 32  # as many products of a level and half a coefficient stay below 2^24


class ScaleCrop(NamedTuple):
  """size: int32 [B,2] or [2] of the rescaled images; offset: of the crop in them (y, x)."""

  size: jax.Array
  offset: jax.Array


def draw_scale_crop(
  keys: jax.Array, shape: tuple[int, int], scale_range: Sequence[float], crop: tuple[int, int]
) -> ScaleCrop:
  """One uniform scale per image, and a uniform place for the crop where the image is larger.

  keys: [B]; shape: (H, W) of the images; scale_range: (lowest, highest); crop: (h, w).
  """

  def draw(key: jax.Array) -> ScaleCrop:
    scale_key, offset_key = jax.random.split(key)
    size = draw_size(scale_key, shape, scale_range)
    return ScaleCrop(size, draw_offset(offset_key, size, crop))

  return jax.vmap(draw)(keys)


def draw_size(key: jax.Array, shape: tuple[int, int], scale_range: Sequence[float]) -> jax.Array:
  """(H, W) times one uniform scale, truncated: int32 [2]."""
  lowest, highest = jnp.array([_size_range(side, scale_range) for side in shape]).T
  scale = jax.random.uniform(key, (), jnp.float32, *scale_range)
  return jnp.clip((jnp.array(shape) * scale).astype(jnp.int32), lowest, highest)


def draw_offset(key: jax.Array, size: jax.Array, crop: tuple[int, int]) -> jax.Array:
  """A uniform place for the crop in a size [2], 0 where it is not larger: int32 [2]."""
  room = jnp.maximum(size - jnp.array(crop), 0)
  return jax.random.randint(key, (2,), 0, room + 1)


def scale_crop(
  images: jax.Array,
  labels: jax.Array,
  confidence: jax.Array | None,
  draws: ScaleCrop,
  crop: tuple[int, int],
  scale_range: Sequence[float],
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
  """Rescales, pads at the right and the bottom where too small, and crops.

  images: levels [B,H,W,3], bilinear, padded by reflection; labels: int [B,H,W], nearest, padded
  with IGNORE; confidence: float [B,H,W] or None, nearest, padded with 0. crop: (h, w) of the
  results. scale_range: static bounds of the draws, which size the filter and a table; a draw beyond
  them gives wrong pixels. ValueError if it allows a reduction beyond 16-fold.

  Rows are filtered before columns, as in Pillow up to 12; Pillow 13 turns that round where the
  height shrinks by more than twice as many pixels as the width, which a common scale does only to
  images more than twice as high as wide.
  """
  axes = [_Axis.of(draws, axis, images.shape[1 + axis], crop[axis]) for axis in (0, 1)]
  sizes = [_size_range(axis.n_in, scale_range) for axis in axes]

  rows, columns = (_resampling(axis, low) for axis, (low, _) in zip(axes, sizes, strict=True))
  images = _resample(jnp.swapaxes(_resample(jnp.swapaxes(images, 1, 2), columns), 1, 2), rows)

  rows, columns = (_nearest_source(axis, *bounds) for axis, bounds in zip(axes, sizes, strict=True))
  inside = axes[0].inside[:, :, None] & axes[1].inside[:, None, :]
  pick = jax.vmap(lambda x, y, z: x[y[:, None], z[None, :]])
  labels = jnp.where(inside, pick(labels, rows, columns), IGNORE)
  if confidence is not None:
    confidence = jnp.where(inside, pick(confidence, rows, columns), 0)
  return images, labels, confidence


def draw_flip(keys: jax.Array) -> jax.Array:
  """Whether each image is to be mirrored, half of them: bool [B]."""
  return jax.vmap(jax.random.bernoulli)(keys)


def flip(x: jax.Array, on: jax.Array) -> jax.Array:
  """Mirrors left and right the images or maps [B,H,W,...] for which `on` [B] holds."""
  return jnp.where(on.reshape(-1, *[1] * (x.ndim - 1)), x[:, :, ::-1], x)


class _Axis(NamedTuple):
  """One side of the images: n_in pixels become n_out [B,1], of which position [B,n] is wanted."""

  n_in: int
  n_out: jax.Array
  position: jax.Array

  @classmethod
  def of(cls, draws: ScaleCrop, axis: int, n_in: int, n_crop: int) -> "_Axis":
    position = draws.offset[:, axis, None] + jnp.arange(n_crop)
    return cls(n_in, draws.size[:, axis, None], position)

  @property
  def inside(self) -> jax.Array:
    return self.position < self.n_out

  @property
  def reflected(self) -> jax.Array:
    """The position folded back into the image, without repeating its edges."""
    last = self.n_out - 1
    folded = self.position % jnp.maximum(2 * last, 1)
    return jnp.where(folded > last, 2 * last - folded, folded)


def _size_range(n_in: int, scale_range: Sequence[float]) -> tuple[int, int]:
  low, high = (max(1, int(n_in * scale)) for scale in scale_range)
  return low, high


def _resampling(axis: _Axis, lowest: int) -> tuple[jax.Array, jax.Array]:
  """Source pixels and 22-bit coefficients, int32 [B,n,taps], of the antialiased triangle filter.

  Twice the distance of two pixel centres is |(2j+1) n_out - (2x+1) n_in| in units of 1/n_out input
  pixels; the triangle falls to zero at twice max(n_in, n_out). lowest: smallest n_out.
  """
  num_taps = max(2, -(-2 * axis.n_in // lowest))
  if num_taps > _MAX_TAPS:
    raise ValueError(f"a side of {axis.n_in} pixels can't shrink to {lowest}: at most 16-fold")
  n_in, n_out = axis.n_in, axis.n_out[..., None]
  center = (2 * axis.reflected[..., None] + 1) * n_in
  reach = 2 * jnp.maximum(n_in, n_out)
  first = (center - reach - n_out) // (2 * n_out) + 1
  row = first + jnp.arange(num_taps)
  weight = jnp.maximum(reach - abs((2 * row + 1) * n_out - center), 0)
  weight = jnp.where((row >= 0) & (row < n_in), weight, 0)
  return row, _fixed_point(weight, weight.sum(-1, keepdims=True))


def _fixed_point(weight: jax.Array, total: jax.Array) -> jax.Array:
  """round(2^22 weight / total) by long division in two steps, which stay below 2^31."""
  high, rest = jnp.divmod(weight << _HALF_BITS, total)
  return (high << _HALF_BITS) + ((rest << _HALF_BITS + 1) + total) // (2 * total)


def _resample(images: jax.Array, taps: tuple[jax.Array, jax.Array]) -> jax.Array:
  """Weighted sums of the rows of [B,H,W,3], rounded to levels: [B,n,W,3]."""
  total = lax.platform_dependent(images, *taps, tpu=_sum_by_matrix, default=_sum_by_taps)
  rounded = (total + (1 << _COEFFICIENT_BITS - 1)) >> _COEFFICIENT_BITS
  return jnp.clip(rounded, 0, 255).astype(images.dtype)


def _sum_by_taps(images: jax.Array, row: jax.Array, coefficient: jax.Array) -> jax.Array:
  """Gathers the rows tap by tap."""
  row = jnp.clip(row, 0, images.shape[1] - 1)  # the coefficient is 0 where this changes it
  rows = jax.vmap(lambda image, index: image[index])
  terms = (
    rows(images, row[..., k]).astype(jnp.int32) * coefficient[..., k, None, None]
    for k in range(row.shape[-1])
  )
  return functools.reduce(jnp.add, terms)


def _sum_by_matrix(images: jax.Array, row: jax.Array, coefficient: jax.Array) -> jax.Array:
  """Two float32 matrix products, with the upper and lower half of the coefficients' bits.

  All sums are whole numbers below 2^24, so exact, and the matrix unit replaces the gather, which is
  slow on a TPU.
  """
  hit = row[..., None] == jnp.arange(images.shape[1])
  matrix = jnp.where(hit, coefficient[..., None], 0).sum(-2)
  halves = jnp.stack([matrix >> _HALF_BITS, matrix & (1 << _HALF_BITS) - 1]).astype(jnp.float32)
  sums = jnp.einsum("kbnh,bhwc->kbnwc", halves, images, precision=lax.Precision.HIGHEST)
  high, low = sums.astype(jnp.int32)
  return (high << _HALF_BITS) + low


def _nearest_source(axis: _Axis, lowest: int, highest: int) -> jax.Array:
  """The input pixel of every wanted position, int32 [B,n]: Pillow's nearest neighbour.

  That is floor((x + 1/2) n_in / n_out), except that Pillow accumulates the step in float64 and may
  so fall just short of a whole number; a table over the possible n_out says where.
  """
  x = jnp.minimum(axis.position, axis.n_out - 1)
  table = jnp.asarray(_short_steps(axis.n_in, lowest, highest))[axis.n_out[:, 0] - lowest]
  short = jnp.take_along_axis(table, x >> 3, axis=1) >> (x & 7).astype(jnp.uint8) & 1
  return (2 * x + 1) * axis.n_in // (2 * axis.n_out) - short


@functools.cache
def _short_steps(n_in: int, lowest: int, highest: int) -> np.ndarray:
  """Packed bits [n_out - lowest, x]: accumulating n_in / n_out falls short of its exact sum."""
  bits = np.zeros((highest - lowest + 1, highest), bool)
  for n_out in range(lowest, highest + 1):
    steps = np.full(n_out, n_in / n_out)
    steps[0] *= 0.5
    exact = (2 * np.arange(n_out, dtype=np.int64) + 1) * n_in // (2 * n_out)
    bits[n_out - lowest, :n_out] = np.add.accumulate(steps).astype(np.int64) < exact
  return np.packbits(bits, axis=1, bitorder="little")
