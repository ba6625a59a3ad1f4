"""Colour jitter and blur, equal to the 8-bit results of Pillow.

Images are float32 levels [B,H,W,3]; all factors are per image, [B]. Products and quotients are kept
exact or corrected, so neither a fused multiply-add nor an approximate division changes a level.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.augment.levels import is_member

Planes = tuple[jax.Array, jax.Array, jax.Array]  # three channels [B,H,W], R G B or H S V

_CONTRAST, _SATURATION, _HUE = 1, 2, 3  # in ColorJitter.order; brightness is 0
_BOX_BITS = 24  # Pillow's fixed point for box blurs
_BOX_PASSES = 3
_REACH = 0.25  # of a drawn factor, to either side
_HUE_REACH = 0.25  # turns
_SIGMA = (0.15, 1.15)  # smallest and largest, in pixels, of a drawn blur


class ColorJitter(NamedTuple):
  """on: bool [B]; the factors and the hue shift (turns): float32 [B]; order: int32 [B,4].

  order lists operations, first applied first: 0 brightness, 1 contrast, 2 saturation, 3 hue.
  """

  on: jax.Array
  brightness: jax.Array
  contrast: jax.Array
  saturation: jax.Array
  hue: jax.Array
  order: jax.Array


class Blur(NamedTuple):
  """on: bool [B]; sigma: float32 [B], the standard deviation in pixels."""

  on: jax.Array
  sigma: jax.Array


def draw_color_jitter(keys: jax.Array, reach: float = _REACH) -> ColorJitter:
  """For 0.8 of images: factors in 1 +- reach, hue shifts in +- 0.25, a random order. keys: [B]."""

  def draw(key: jax.Array) -> ColorJitter:
    coin, order, *factors = jax.random.split(key, 6)
    around = lambda key, center, reach: jax.random.uniform(
      key, (), jnp.float32, center - reach, center + reach
    )
    return ColorJitter(
      jax.random.bernoulli(coin, 0.8),
      *map(around, factors, (1, 1, 1, 0), (reach, reach, reach, _HUE_REACH)),
      jax.random.permutation(order, 4).astype(jnp.int32),
    )

  return jax.vmap(draw)(keys)


def color_jitter(images: jax.Array, draws: ColorJitter) -> jax.Array:
  """The four operations in each image's own order; images whose draw is off stay as they are.

  Three of them are one blend with different ends, and cheap: up to three blends, the hue, up to
  three blends, each doing nothing in the images where it is on the hue's other side.
  """
  planes = images[..., 0], images[..., 1], images[..., 2]
  factors = jnp.stack([draws.brightness, draws.contrast, draws.saturation], axis=1)
  is_hue = draws.order == _HUE
  hue_place = jnp.argmax(is_hue, axis=1)
  # the order of the other three: a stable sort moves the hue behind them
  others = jnp.take_along_axis(draws.order, jnp.argsort(is_hue, axis=1, stable=True), axis=1)

  def blends(planes: Planes, active: jax.Array) -> Planes:
    for place in range(3):
      operation = others[:, place]
      factor = jnp.take_along_axis(factors, operation[:, None], axis=1)[:, 0]
      # a brightness of one is the identity
      operation = jnp.where(active[:, place], operation, 0)
      factor = jnp.where(active[:, place], factor, 1)
      planes = _blend(planes, _blend_end(planes, operation), factor)
    return planes

  before = jnp.arange(3) < hue_place[:, None]
  planes = blends(planes, before)
  planes = _shift_hue(planes, draws.hue)
  planes = blends(planes, ~before)
  return jnp.where(_per_image(draws.on, 4), jnp.stack(planes, axis=-1), images)


def gray(images: jax.Array, on: jax.Array) -> jax.Array:
  """The images that are on, bool [B], in three equal channels."""
  planes = images[..., 0], images[..., 1], images[..., 2]
  return jnp.where(_per_image(on, 4), _grey(planes)[..., None], images)


def draw_blur(keys: jax.Array, sigma: tuple[float, float] = _SIGMA) -> Blur:
  """For half of the images, with a uniform standard deviation between two. keys: [B]."""

  def draw(key: jax.Array) -> Blur:
    coin, width = jax.random.split(key)
    return Blur(jax.random.bernoulli(coin, 0.5), jax.random.uniform(width, (), jnp.float32, *sigma))

  return jax.vmap(draw)(keys)


def gaussian_blur(images: jax.Array, draws: Blur, max_sigma: float = _SIGMA[1]) -> jax.Array:
  """Pillow's Gaussian: three box blurs along the rows, then three along the columns.

  A box has fractional ends and fixed-point weights; every pass rounds to levels and repeats the
  edge pixels. max_sigma: static bound of the draws, which sizes the box. The weights come from
  float32 divisions: a backend that rounds these otherwise may differ by a level in rare pixels.
  """
  reach = int(_box_radius(np.float32(max_sigma), np)) + 1
  weights = _box_weights(draws.sigma, reach)
  blurred = images.astype(jnp.uint32)
  for axis in (2, 1):
    for _ in range(_BOX_PASSES):
      blurred = _box_blur(blurred, weights, axis)
  return jnp.where(_per_image(draws.on, 4), blurred.astype(images.dtype), images)


def shifted(images: jax.Array, reach: int, axis: int, mode: str) -> list[jax.Array]:
  """[B,H,W,C] read at -reach..reach pixels along axis 1 or 2; mode: of the margins, see jnp.pad."""
  pad = [(reach, reach) if i == axis else (0, 0) for i in range(4)]
  # stored before it is read in shifts: fused into a sum, the padding makes that ten times slower
  padded = jax.lax.optimization_barrier(jnp.pad(images, pad, mode=mode))
  side = images.shape[axis]
  return [jax.lax.slice_in_dim(padded, i, i + side, axis=axis) for i in range(2 * reach + 1)]


def _per_image(x: jax.Array, ndim: int) -> jax.Array:
  return x.reshape(-1, *[1] * (ndim - 1))


def _grey(planes: Planes) -> jax.Array:
  """(19595 R + 38470 G + 7471 B + 32768) >> 16; every sum is a whole number below 2^24."""
  red, green, blue = planes
  return jnp.floor((19595 * red + 38470 * green + 7471 * blue + 32768) * 2.0**-16)


def _mean_grey(grey: jax.Array) -> jax.Array:
  """The mean of [B,H,W], rounded half up: [B,1,1].

  Float32 column sums are exact whole numbers, their sum fits 32 bits up to 4096 x 4096.
  """
  count = jnp.uint32(grey.shape[1] * grey.shape[2])
  total = grey.sum(1, keepdims=True).astype(jnp.uint32).sum(2, keepdims=True)
  mean, rest = jnp.divmod(total, count)
  return (mean + (rest >= count - rest)).astype(grey.dtype)


def _blend_end(planes: Planes, operation: jax.Array) -> jax.Array:
  """What a factor of 0 gives, [B,H,W]: black, the mean grey or the grey image."""
  operation = _per_image(operation, 3)
  grey = _grey(planes)
  gray_end = jnp.where(operation == _CONTRAST, _mean_grey(grey), 0)
  return jnp.where(operation == _SATURATION, grey, gray_end)


def _blend(planes: Planes, end: jax.Array, factor: jax.Array) -> Planes:
  """trunc(clip(end + factor (x - end))) as float32 steps with two roundings.

  The factor is split into two halves of 12 bits: both products with a difference of levels are
  exact, so that their sum is the rounded product whether or not the backend fuses.
  """
  factor = _per_image(factor.astype(jnp.float32), 3)
  bits = jax.lax.bitcast_convert_type(factor, jnp.uint32) & jnp.uint32(0xFFFFF000)
  high = jax.lax.bitcast_convert_type(bits, jnp.float32)
  low = factor - high
  blend = lambda x: jnp.floor(jnp.clip(end + (high * (x - end) + low * (x - end)), 0, 255))
  return tuple(blend(x) for x in planes)


def _shift_hue(planes: Planes, shift: jax.Array) -> Planes:
  hue, saturation, value = rgb_to_hsv(planes)
  turned = hue + _per_image(jnp.trunc(255 * shift), 3)
  return hsv_to_rgb((turned - 256 * jnp.floor(turned / 256), saturation, value))


def rgb_to_hsv(planes: Planes) -> Planes:
  """8-bit H, S and V as Pillow has them: 255 h and 255 s truncated, where h = 1 is a full turn.

  h is 255/6 = 85/2 times (sector + part / range), so its floor is one of whole numbers, but
  Pillow's float32 steps fall below some whole results.
  """
  red, green, blue = planes
  value = jnp.maximum(jnp.maximum(red, green), blue)
  spread = value - jnp.minimum(jnp.minimum(red, green), blue)
  divisor = jnp.maximum(2 * spread, 1)
  is_red, is_green = red == value, green == value
  sector = jnp.where(is_red, 0, jnp.where(is_green, 170, 340)) * spread
  part = jnp.where(is_red, green - blue, jnp.where(is_green, blue - red, red - green))
  angle = sector + 85 * part
  angle = jnp.where(angle < 0, angle + 510 * spread, angle)
  hue = _floor_divide(angle, divisor)
  short = (hue * divisor == angle) & is_member(hue.astype(jnp.int32), _short_hues())
  hue = hue - (short & (spread > 0))
  return hue, _floor_divide(255 * spread, jnp.maximum(value, 1)), value


def hsv_to_rgb(planes: Planes) -> Planes:
  """Back to R, G and B, rounded to nearest, as Pillow does it.

  With f = (6 H mod 255) / 255 = third / 85 and s = S / 255, the levels are V (1 - s), V (1 - s f)
  and V (1 - s (1 - f)): quotients by 21675 = 255 * 85 of whole numbers below 2^23, never a tie.
  """
  hue, saturation, value = planes
  sector = jnp.floor(2 * hue * (1 / 85) + 1 / 255)  # 0..6; the summand keeps whole results whole
  third = 2 * hue - 85 * sector
  level = lambda part: _round_divide(value * (21675 - saturation * part), 21675)
  low, falling, rising = level(85), level(third), level(85 - third)
  pick = lambda *levels: functools.reduce(
    lambda rest, i: jnp.where(sector == i, levels[i], rest), range(1, 6), levels[0]
  )
  return (
    pick(value, falling, low, low, rising, value),
    pick(rising, value, value, falling, low, low),
    pick(low, low, rising, value, value, falling),
  )


def _floor_divide(x: jax.Array, divisor: jax.Array) -> jax.Array:
  """floor(x / divisor) of whole numbers, x < 2^24, for results below 2^12."""
  quotient = jnp.floor(x / divisor)
  rest = x - quotient * divisor
  return quotient + (rest >= divisor) - (rest < 0)


def _round_divide(x: jax.Array, divisor: int) -> jax.Array:
  """x / divisor rounded to nearest, for whole numbers and an odd divisor; same bounds."""
  quotient = jnp.round(x / divisor)
  twice_rest = 2 * (x - quotient * divisor)
  return quotient + (twice_rest > divisor) - (twice_rest < -divisor)


@functools.cache
def _short_hues() -> np.ndarray:
  """bool [256]: hues whose exact value is a whole level that the float32 steps fall short of."""
  level = np.arange(256)
  sector = np.where(level <= 42, 0, np.where(level <= 127, 2, np.where(level <= 212, 4, 6)))
  part = 2 * level / 85 - sector
  other = (1 - abs(part)).astype(np.float32).astype(np.float64)
  position = (sector % 6 + np.sign(part) * (1 - other)).astype(np.float32).astype(np.float64)
  turn = np.mod(position / 6 + 1, 1).astype(np.float32).astype(np.float64)
  return np.floor(turn * 255) < level


def _box_radius(sigma: jax.Array, xp=jnp) -> jax.Array:
  """The radius, with a fraction, of three boxes whose variances add up to sigma's, in float32."""
  # a divisor known to be one number would become a product with its rounded reciprocal
  passes = xp.where(sigma >= 0, xp.float32(_BOX_PASSES), xp.float32(1))
  variance = sigma * sigma / passes
  # three times it as a sum: a product could be fused with what follows, and not be rounded
  triple = variance + (variance + variance)
  whole = xp.floor((xp.sqrt(4 * triple + 1) - 1) * xp.float32(0.5))
  part = (2 * whole + 1) * (whole * (whole + 1) - triple)
  return whole + part / (6 * (variance - (whole + 1) * (whole + 1)))


def _box_weights(sigma: jax.Array, reach: int) -> jax.Array:
  """24-bit weights uint32 [B, 2 reach + 1]: equal ones, and what is left at both ends."""
  radius = _box_radius(sigma.astype(jnp.float32))[:, None]
  inner = (jnp.float32(1 << _BOX_BITS) / (2 * radius + 1)).astype(jnp.uint32)
  whole = radius.astype(jnp.int32)
  outer = ((1 << _BOX_BITS) - (2 * whole + 1).astype(jnp.uint32) * inner) // 2
  distance = abs(jnp.arange(-reach, reach + 1))
  return jnp.where(distance <= whole, inner, jnp.where(distance == whole + 1, outer, 0))


def _box_blur(levels: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
  """One pass over uint32 [B,H,W,3] along axis 1 or 2, rounded; sums stay below 2^32."""
  shifts = shifted(levels, weights.shape[1] // 2, axis, "edge")
  total = sum(_per_image(w, 4) * shift for w, shift in zip(weights.T, shifts, strict=True))
  return (total + jnp.uint32(1 << _BOX_BITS - 1)) >> _BOX_BITS
