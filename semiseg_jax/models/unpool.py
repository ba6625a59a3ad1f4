"""Max-pool that remembers where each maximum was, and its way back."""

import jax
import jax.numpy as jnp

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
