"""Channels of features that are dropped, each image's own."""

import jax
import jax.numpy as jnp

from semiseg_jax.collectives import device_count, device_index

Features = tuple[jax.Array, ...]


def draw_coins(keys: jax.Array, features: Features) -> dict[int, jax.Array]:
  """Fair coins, bool [B,D], for each number D of channels that the features have. keys: [B].

  Features of as many channels share theirs (a ViT's all do; UniMatch V2's author drew a CNN's level
  by level).
  """
  widths = sorted({level.shape[-1] for level in features})
  coins = lambda key, width: jax.random.bernoulli(jax.random.fold_in(key, width), 0.5, (width,))
  return jax.vmap(lambda key: {width: coins(key, width) for width in widths})(keys)


def draw_untouched(key: jax.Array, count: int, axis_name: str | None = None) -> jax.Array:
  """bool [B], which of a device's B = count images are among half of the batch, rounded down.

  key: equal on all devices.
  """
  total = count * device_count(axis_name)
  rank = device_index(axis_name) * count + jnp.arange(count)
  return jax.random.permutation(key, total)[rank] < total // 2


def complementary(coins: jax.Array, untouched: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Factors float32 [B,D] of two views: 2 in one where 0 in the other; 1 in untouched images.

  coins: bool [B,D]; untouched: bool [B]. Source: UniMatch V2, `dpt.py`.
  """
  first = jnp.where(untouched[:, None], 1.0, jnp.where(coins, 2.0, 0.0))
  return first, 2 - first


def scaled(features: Features, factors: dict[int, jax.Array]) -> Features:
  """Each level [B,h,w,D] by its factors [B,D], in its own dtype."""
  of = lambda level: factors[level.shape[-1]][:, None, None].astype(level.dtype)
  return tuple(level * of(level) for level in features)
