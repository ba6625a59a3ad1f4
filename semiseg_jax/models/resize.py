"""Resizing with PyTorch's rules: bilinear as two matrix products, nearest as an index."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax


def resize_bilinear(x: jax.Array, size: tuple[int, int], align_corners: bool) -> jax.Array:
  """x [...,h,w,C] -> [...,H,W,C] in its own dtype, computed in float32; no antialiasing.

  align_corners: the outer pixels' centres coincide; otherwise their outer edges do.
  """
  if x.shape[-3:-1] == tuple(size):
    return x
  sides = list(zip(x.shape[-3:-1], size, strict=True))
  is_known = not any(map(export.is_symbolic_dim, sum(sides, ())))
  matrix = _known_matrix if is_known else bilinear_matrix
  rows, columns = (matrix(n_in, n_out, align_corners) for n_in, n_out in sides)
  product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
  y = product("Hh,...hwc->...Hwc", rows, x.astype(jnp.float32))
  return product("Ww,...hwc->...hWc", columns, y).astype(x.dtype)


def bilinear_matrix(n_in: int, n_out: int, align_corners: bool) -> np.ndarray | jax.Array:
  """float32 [n_out, n_in]: each output's weights on its two neighbours in the input.

  Positions are fractions of integers, so that float32 is enough. Of sides that are symbols the
  exported program computes it.
  """
  xp = jnp if any(map(export.is_symbolic_dim, (n_in, n_out))) else np
  position, column = xp.arange(n_out)[:, None], xp.arange(n_in)
  if align_corners:
    place, unit = position * (n_in - 1), xp.maximum(n_out - 1, 1)
  else:
    place, unit = xp.maximum((2 * position + 1) * n_in - n_out, 0), 2 * n_out
  low, weight = place // unit, place % unit / unit
  high = xp.minimum(low + 1, n_in - 1)
  return ((column == low) * (1 - weight) + (column == high) * weight).astype(np.float32)


_known_matrix = functools.lru_cache(maxsize=64)(bilinear_matrix)  # a traced one must not be kept


def nearest_index(n_in: int, n_out: int) -> np.ndarray:
  """Source index of each output: floor(i * n_in/n_out), the ratio in float32, no half-pixel."""
  ratio = np.float32(n_in / n_out)
  index = np.floor(np.arange(n_out, dtype=np.float32) * ratio).astype(np.int32)
  return np.minimum(index, n_in - 1)


def resize_nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """x [B,h,w] or [B,h,w,C] -> [B,H,W] or [B,H,W,C], by `nearest_index`."""
  rows, columns = (nearest_index(n, m) for n, m in zip(x.shape[1:3], size, strict=True))
  return x[:, rows][:, :, columns]
