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
  rows, columns = (
    (_symbolic_matrix if _is_symbolic(sides) else bilinear_matrix)(*sides, align_corners)
    for sides in zip(x.shape[-3:-1], size, strict=True)
  )
  product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
  y = product("Hh,...hwc->...Hwc", rows, x.astype(jnp.float32))
  return product("Ww,...hwc->...hWc", columns, y).astype(x.dtype)


@functools.lru_cache(maxsize=64)
def bilinear_matrix(n_in: int, n_out: int, align_corners: bool) -> np.ndarray:
  """float32 [n_out, n_in]: each output's weights on its two neighbours in the input."""
  position = np.arange(n_out)
  if align_corners:
    source = position * ((n_in - 1) / (n_out - 1) if n_out > 1 else 0.0)
  else:
    source = np.maximum((position + 0.5) * n_in / n_out - 0.5, 0)
  low = np.minimum(np.floor(source).astype(int), n_in - 1)
  high = np.minimum(low + 1, n_in - 1)
  weight = source - low
  matrix = np.zeros((n_out, n_in))
  np.add.at(matrix, (position, low), 1 - weight)
  np.add.at(matrix, (position, high), weight)
  return matrix.astype(np.float32)


def _is_symbolic(sides: tuple[int, ...]) -> bool:
  return any(export.is_symbolic_dim(side) for side in sides)


def _symbolic_matrix(n_in: int, n_out: int, align_corners: bool) -> jax.Array:
  """bilinear_matrix for sides that are symbols of an exported program; integers keep it exact."""
  position = jnp.arange(n_out)
  if align_corners:
    source, unit = position * (n_in - 1), jnp.maximum(n_out - 1, 1)
  else:
    source, unit = jnp.maximum((2 * position + 1) * n_in - n_out, 0), jnp.asarray(2 * n_out)
  low, weight = source // unit, (source % unit).astype(jnp.float32) / unit
  column = jnp.arange(n_in)
  at = lambda index: (column == jnp.minimum(index, n_in - 1)[:, None]).astype(jnp.float32)
  return at(low) * (1 - weight)[:, None] + at(low + 1) * weight[:, None]


def nearest_index(n_in: int, n_out: int) -> np.ndarray:
  """Source index of each output: floor(i * n_in/n_out), the ratio in float32, no half-pixel."""
  ratio = np.float32(n_in / n_out)
  index = np.floor(np.arange(n_out, dtype=np.float32) * ratio).astype(np.int32)
  return np.minimum(index, n_in - 1)


def resize_nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """x [B,h,w] or [B,h,w,C] -> [B,H,W] or [B,H,W,C], by `nearest_index`."""
  rows, columns = (nearest_index(n, m) for n, m in zip(x.shape[1:3], size, strict=True))
  return x[:, rows][:, :, columns]
