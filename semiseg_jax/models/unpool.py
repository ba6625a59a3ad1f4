"""Max-pool that remembers where each maximum was, and its way back."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

Size = tuple[int, int]


def max_pool_places(x: jax.Array, ceil_mode: bool = False) -> tuple[jax.Array, jax.Array]:
  """Maxima of 2x2 windows, and which of a window's four pixels each was: of equal ones the first.

  x [B,H,W,C] -> [B,h,w,C] and int32 [B,h,w,C]. h = H // 2, or with ceil_mode, where the windows at
  the edge may have fewer pixels, ceil(H / 2).
  """
  height, width = x.shape[1:3]
  if ceil_mode:
    pads = [(0, 0), (0, height % 2), (0, width % 2), (0, 0)]
    x = jnp.pad(x, pads, constant_values=-jnp.inf)
  windows = _windows(x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2])
  place = jnp.argmax(windows, axis=3)
  return jnp.take_along_axis(windows, place[:, :, :, None], axis=3)[:, :, :, 0], place


def max_unpool(x: jax.Array, place: jax.Array, size: Size) -> jax.Array:
  """x at the places that `max_pool_places` gave, 0 elsewhere: [B,h,w,C] -> [B,H,W,C]."""
  batch, height, width, channels = x.shape
  is_place = place[:, :, :, None] == jnp.arange(4)[:, None]
  windows = jnp.where(is_place, x[:, :, :, None], 0).reshape(batch, height, width, 2, 2, channels)
  y = windows.swapaxes(2, 3).reshape(batch, 2 * height, 2 * width, channels)[
    :, : size[0], : size[1]
  ]
  lacking = [(0, n - m) for n, m in zip(size, y.shape[1:3], strict=True)]
  return jnp.pad(y, [(0, 0), *lacking, (0, 0)])


def _windows(x: jax.Array) -> jax.Array:
  """x [B,2h,2w,C] as [B,h,w,4,C]."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
  return x.reshape(batch, height // 2, width // 2, 4, channels)


def overlapping_max_pool_places(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Maxima of 3x3 windows at stride 2, and which of a window's nine pixels each was: the first.

  x [B,H,W,C] -> [B,h,w,C] and int32 [B,h,w,C], h = ceil(H / 2): window i begins at row 2i - 1.
  """
  height, width = x.shape[1:3]
  padded = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-jnp.inf)
  pixels = [
    padded[:, row : row + height : 2, column : column + width : 2]
    for row, column in itertools.product(range(3), repeat=2)
  ]
  best, place = pixels[0], jnp.zeros(pixels[0].shape, jnp.int32)
  for i, pixel in enumerate(pixels[1:], start=1):
    best, place = jnp.where(pixel > best, pixel, best), jnp.where(pixel > best, i, place)
  return best, place


def overlapping_max_unpool(x: jax.Array, place: jax.Array, size: Size) -> jax.Array:
  """x at the places that `overlapping_max_pool_places` gave of an image of that size, 0 elsewhere.

  [B,h,w,C] -> [B,H,W,C]. Of windows that point at one pixel the last counts, row by row. Written
  as a choice among the windows a pixel is in, as scattered values come in any order.
  """
  batch, height, width, channels = x.shape
  y, nowhere = jnp.zeros((batch, height, 2, width, 2, channels), x.dtype), 9
  for below, right in itertools.product(range(2), repeat=2):
    rows, columns = (np.arange(2) + 1 - 2 * shift for shift in (below, right))
    pixel = np.where(np.add.outer(rows < 0, columns < 0), -1, np.add.outer(3 * rows, columns))
    pads = [(0, 0), (0, below), (0, right), (0, 0)]
    values = jnp.pad(x, pads)[:, below:, right:]
    places = jnp.pad(place, pads, constant_values=nowhere)[:, below:, right:]
    is_there = places[:, :, None, :, None] == pixel[:, None, :, None]
    y = jnp.where(is_there, values[:, :, None, :, None], y)
  return y.reshape(batch, 2 * height, 2 * width, channels)[:, : size[0], : size[1]]
