"""What a level is: on the device an image is float32 levels, whole numbers 0..255, until a network
normalises it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.models.normalization import IMAGENET, unit

BLACKED_OUT = np.array([123, 116, 103], np.float32)  # the level of zero in normalised space


def eight_bit_pass(images: jax.Array) -> jax.Array:
  """Levels [...,3] after the original's trip from tensor to 8-bit image, which truncates.

  Where float32 falls short of the level it came from, the level drops by one: 59, 38 and 32 of the
  256 levels of R, G and B (ReCo, between its augmentation stages).
  """
  dropped = is_member(images.astype(jnp.int32), _dropped_levels())
  return images - dropped.astype(images.dtype)


def eight_bit_confidence(confidence: jax.Array) -> jax.Array:
  """A confidence in [0, 1] as 8 bits keep it: trunc(255 q) / 255. Further passes keep it."""
  return unit(jnp.floor(255 * confidence.astype(jnp.float32)))


def is_member(values: jax.Array, members: jax.Array | np.ndarray) -> jax.Array:
  """members[..., value] for values in 0..255.

  values: int32 [...]; members: bool [..., 256] whose leading axes broadcast against values.
  Eight selections from packed words: unlike a gather, elementwise on every backend.
  """
  words = pack_members(members)
  word = sum(jnp.where(values >> 5 == i, words[..., i], jnp.uint32(0)) for i in range(8))
  return (word >> (values & 31).astype(jnp.uint32)) & 1 == 1


def pack_members(members: jax.Array | np.ndarray) -> jax.Array:
  """bool [..., 256] as uint32 [..., 8], bit i of word k for member 32 k + i."""
  bits = jnp.asarray(members, jnp.uint32).reshape(*members.shape[:-1], 8, 32)
  return (bits << jnp.arange(32, dtype=jnp.uint32)).sum(-1, dtype=jnp.uint32)


@functools.cache
def _dropped_levels() -> np.ndarray:
  """bool [3,256]: levels that lose one in `eight_bit_pass`, by the original's float32 steps."""
  levels = np.arange(256, dtype=np.float32)[:, None]
  mean, std = (np.array(x, np.float32) for x in (IMAGENET.mean, IMAGENET.std))
  normalised = (levels / np.float32(255) - mean) / std
  inverse_std = (1 / np.array([0.229, 0.224, 0.225])).astype(np.float32)
  restored = normalised / inverse_std - (-mean)
  return (np.floor(np.float32(255) * restored) < levels).T
