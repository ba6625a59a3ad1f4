"""What a level is: conversions between 8-bit values and the network's input.

On the device an image is float32 levels, whole numbers 0..255, until `normalize`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLACKED_OUT = np.array([123, 116, 103], np.float32)  # the level of zero in normalised space


class Normalization(NamedTuple):
  """How levels become a network's input; it must be the one that its weights were trained with.

  mean, std: of each channel of the input, in its order. bgr: the input's channels are blue, green,
  red. unit: levels are divided by 255 first.
  """

  mean: tuple[float, float, float]
  std: tuple[float, float, float] = (1.0, 1.0, 1.0)
  bgr: bool = False
  unit: bool = False


def _centered(rgb_mean: tuple[float, float, float], bgr: bool) -> Normalization:
  """(level - mean) / 255 (Alonso et al. 2021)."""
  return Normalization(rgb_mean[::-1] if bgr else rgb_mean, (255.0, 255.0, 255.0), bgr)


_PASCAL = (122.6789143, 116.66876762, 104.00698793)
_CITYSCAPES = (73.15835921, 82.90891754, 72.39239876)
_HALF = (127.5, 127.5, 127.5)

IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), unit=True)
COCO = Normalization((104.008, 116.669, 122.675), bgr=True)  # DST-CBC
MEAN, STD = (np.array(x, np.float32) for x in (IMAGENET.mean, IMAGENET.std))
NORMALIZATIONS = {
  "imagenet": IMAGENET,
  "coco": COCO,
  "pascal_rgb": _centered(_PASCAL, bgr=False),
  "pascal_bgr": _centered(_PASCAL, bgr=True),
  "cityscapes_rgb": _centered(_CITYSCAPES, bgr=False),
  "cityscapes_bgr": _centered(_CITYSCAPES, bgr=True),
  "half_rgb": _centered(_HALF, bgr=False),
  "half_bgr": _centered(_HALF, bgr=True),
}


def normalize(images: jax.Array, normalization: Normalization = IMAGENET) -> jax.Array:
  """RGB levels [...,3] to the network's float32 input, (level - mean) / std."""
  levels = images.astype(jnp.float32)
  if normalization.bgr:
    levels = levels[..., ::-1]
  if normalization.unit:
    levels = _unit(levels)
  mean, std = (np.array(x, np.float32) for x in (normalization.mean, normalization.std))
  return (levels - mean) / std


def eight_bit_pass(images: jax.Array) -> jax.Array:
  """Levels [...,3] after the original's trip from tensor to 8-bit image, which truncates.

  Where float32 falls short of the level it came from, the level drops by one: 59, 38 and 32 of the
  256 levels of R, G and B (ReCo, between its augmentation stages).
  """
  dropped = is_member(images.astype(jnp.int32), _dropped_levels())
  return images - dropped.astype(images.dtype)


def eight_bit_confidence(confidence: jax.Array) -> jax.Array:
  """A confidence in [0, 1] as 8 bits keep it: trunc(255 q) / 255. Further passes keep it."""
  return _unit(jnp.floor(255 * confidence.astype(jnp.float32)))


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


def _unit(levels: jax.Array) -> jax.Array:
  """level / 255, correctly rounded for the 256 levels.

  Compilers turn a division by a constant into a product that is off by an ulp, which a second
  `eight_bit_confidence` would make a level. Here the first product is exact and the second tiny.
  """
  high = np.float32(2.0**-8 + 2.0**-16)
  low = np.float32(1 / 255 - float(high))
  return levels * high + levels * low


@functools.cache
def _dropped_levels() -> np.ndarray:
  """bool [3,256]: levels that lose one in `eight_bit_pass`, by the original's float32 steps."""
  levels = np.arange(256, dtype=np.float32)[:, None]
  normalised = (levels / np.float32(255) - MEAN) / STD
  inverse_std = (1 / np.array([0.229, 0.224, 0.225])).astype(np.float32)
  restored = normalised / inverse_std - (-MEAN)
  return (np.floor(np.float32(255) * restored) < levels).T
