"""Rescaling a whole batch by one drawn scale, in floating point, back onto its own size.

Shapes stay static: along each side it is a product with a drawn matrix. `geometry` does it for each
image by itself, in whole levels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semiseg_jax.augment.geometry import ScaleCrop, draw_offset, draw_size
from semiseg_jax.labels import IGNORE


def draw_rescale(
  key: jax.Array, shape: tuple[int, int], probability: float, scale_range: Sequence[float]
) -> ScaleCrop:
  """With the given probability a uniform scale, else 1, and a uniform place for the crop.

  shape: (H, W) of the images; scale_range: (lowest, highest).
  """
  coin, scale_key, offset_key = jax.random.split(key, 3)
  scaled = draw_size(scale_key, shape, scale_range)
  size = jnp.where(jax.random.bernoulli(coin, probability), scaled, jnp.array(shape))
  return ScaleCrop(size, draw_offset(offset_key, size, shape))


def rescale(
  images: jax.Array,
  labels: jax.Array,
  confidence: jax.Array | None,
  draws: ScaleCrop,
  scale_range: Sequence[float],
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
  """Rescales, then crops what is too large and pads around what is too small.

  images [B,H,W,3] and confidence [B,H,W], float32: bilinear with aligned corners, padded with 0;
  labels int [B,H,W]: nearest, padded with IGNORE. An odd padding has one row more at the top than
  at the bottom, one column less at the left than at the right. scale_range: static bounds of the
  draws. Source: Alonso et al. 2021, `transformsgpu.py`.
  """
  rows, columns = (
    _Axis.of(draws, axis, n, extra_before=axis == 0) for axis, n in enumerate(labels.shape[1:])
  )
  bilinear = (_bilinear(rows), _bilinear(columns))
  images = _resample(images, *bilinear)
  if confidence is not None:
    confidence = _resample(confidence, *bilinear)
  nearest = (_nearest(axis, int(axis.n_in * scale_range[1])) for axis in (rows, columns))
  inside = rows.inside[:, None] & columns.inside
  # one weight of 1 in each row of a matrix: the product picks labels exactly
  picked = _resample(labels.astype(jnp.float32), *nearest).astype(labels.dtype)
  return images, jnp.where(inside, picked, IGNORE), confidence


class _Axis(NamedTuple):
  """One side: n_in pixels become n_out, of which those at `position`, int32 [n_in], are wanted."""

  n_in: int
  n_out: jax.Array
  position: jax.Array

  @classmethod
  def of(cls, draws: ScaleCrop, axis: int, n_in: int, extra_before: bool) -> "_Axis":
    n_out = draws.size[axis]
    before = (jnp.maximum(n_in - n_out, 0) + extra_before) // 2
    return cls(n_in, n_out, jnp.arange(n_in) - before + draws.offset[axis])

  @property
  def inside(self) -> jax.Array:
    return (self.position >= 0) & (self.position < self.n_out)


def _bilinear(axis: _Axis) -> jax.Array:
  """float32 [n_in, n_in]: the weights of two neighbours, 0 outside the rescaled image.

  The place in the input is position (n_in - 1) / (n_out - 1), split into whole and rest without
  rounding.
  """
  steps = jnp.maximum(axis.n_out - 1, 1)
  low, rest = jnp.divmod(axis.position * (axis.n_in - 1), steps)
  weight = (rest / steps)[:, None]
  offset = jnp.arange(axis.n_in) - low[:, None]
  matrix = jnp.where(offset == 0, 1 - weight, jnp.where(offset == 1, weight, 0))
  return jnp.where(axis.inside[:, None], matrix, 0)


def _nearest(axis: _Axis, highest: int) -> jax.Array:
  """float32 [n_in, n_in]: 1 at pixel floor(position * n_in/n_out) as float32 steps have it.

  The ratio comes from a table over n_out up to `highest`: a division on the device may be off by
  an ulp, which moves pixels where the product is nearly whole.
  """
  ratios = np.float32(axis.n_in) / np.arange(1, highest + 1, dtype=np.float32)
  ratio = jnp.asarray(ratios)[axis.n_out - 1]
  offset = jnp.floor(axis.position * ratio).astype(jnp.int32)
  offset = jnp.minimum(offset, axis.n_in - 1)[:, None]
  return (offset == jnp.arange(axis.n_in)).astype(jnp.float32)


def _resample(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
  """[B,H,W] or [B,H,W,C], mapped along H and W by a matrix each, in float32."""
  x = jnp.einsum("Hh,bhw...->bHw...", rows, x, precision=lax.Precision.HIGHEST)
  return jnp.einsum("Ww,bhw...->bhW...", columns, x, precision=lax.Precision.HIGHEST)
