"""Colour jitter and blur of real-valued levels, as kornia 0.4.1 computed them.

Images are float32 [B,H,W,3] in 0..255, results are not rounded. `photometric` has the 8-bit kind.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.augment.photometric import shifted

BLUR_REACH = 11  # a kernel of 23 taps


class ColorFactors(NamedTuple):
  """Three factors and a hue shift (turns), float32 [B], and one order for the batch, int32 [4].

  order lists operations, first applied first: 0 brightness, 1 contrast, 2 saturation, 3 hue.
  """

  brightness: jax.Array
  contrast: jax.Array
  saturation: jax.Array
  hue: jax.Array
  order: jax.Array


def draw_color_factors(key: jax.Array, keys: jax.Array, strength: float) -> ColorFactors:
  """Uniform factors for each image and a random order for all.

  Brightness and contrast in 1 +- strength, saturation in 1 +- strength / 2, the hue's shift in
  +- strength / 3. key: equal on all devices; keys: [B].
  """
  reach = jnp.array([strength, strength, strength / 2, strength / 3], jnp.float32)
  draw = lambda key: jax.random.uniform(key, (4,), jnp.float32, -1, 1)
  change = jax.vmap(draw)(keys) * reach
  factors = (change + jnp.array([1, 1, 1, 0], jnp.float32)).T
  return ColorFactors(*factors, jax.random.permutation(key, 4).astype(jnp.int32))


def jitter_colors(images: jax.Array, draws: ColorFactors) -> jax.Array:
  """The four operations one after the other, in the drawn order."""
  factors = [x[:, None, None] for x in (draws.brightness, draws.contrast)]
  factors += [x[:, None, None] for x in (draws.saturation, draws.hue)]
  operations = (_brighten, _stretch_contrast, _saturate, _turn_hue)
  branches = [
    lambda planes, operation=operation, factor=factor: operation(planes, factor)
    for operation, factor in zip(operations, factors, strict=True)
  ]
  step = lambda planes, place: (lax.switch(place, branches, planes), None)
  planes, _ = lax.scan(step, jnp.moveaxis(images, -1, 0) / 255, draws.order)
  return 255 * jnp.moveaxis(planes, 0, -1)


def gaussian_blur(images: jax.Array, sigma: jax.Array) -> jax.Array:
  """A Gaussian with its own standard deviation, in pixels, along each axis.

  sigma: float32 [2], vertical and horizontal. 23 taps, normalised; the border is mirrored without
  repeating the edge. The original's (0.1, 1.5) leaves the vertical axis as it is.
  """
  taps = jnp.arange(-BLUR_REACH, BLUR_REACH + 1)
  for axis in (1, 2):
    kernel = jnp.exp(-(taps**2) / (2 * sigma[axis - 1] ** 2))
    shifts = shifted(images, BLUR_REACH, axis, "reflect")
    images = sum(w * shift for w, shift in zip(kernel / kernel.sum(), shifts, strict=True))
  return images


def _brighten(planes: jax.Array, factor: jax.Array) -> jax.Array:
  return jnp.clip(planes + (factor - 1), 0, 1)


def _stretch_contrast(planes: jax.Array, factor: jax.Array) -> jax.Array:
  return jnp.clip(planes * factor, 0, 1)


def _saturate(planes: jax.Array, factor: jax.Array) -> jax.Array:
  hue, saturation, value = _rgb_to_hsv(planes)
  return _hsv_to_rgb(hue, jnp.clip(saturation * factor, 0, 1), value)


def _turn_hue(planes: jax.Array, shift: jax.Array) -> jax.Array:
  hue, saturation, value = _rgb_to_hsv(planes)
  return _hsv_to_rgb(hue + shift, saturation, value)


def _rgb_to_hsv(planes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Planes [3,B,H,W] in 0..1 to hue in turns, saturation and value, [B,H,W]."""
  red, green, blue = planes
  value = planes.max(0)
  spread = value - planes.min(0)
  divisor = jnp.where(spread == 0, 1, spread)
  sector = jnp.where(
    red == value,
    (green - blue) / divisor,
    jnp.where(green == value, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
  )
  return sector / 6, spread / jnp.maximum(value, jnp.finfo(jnp.float32).tiny), value


def _hsv_to_rgb(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
  """Back to planes [3,B,H,W]; any number of whole turns may be added to the hue.

  A channel falls linearly from `value` by `saturation` with the distance of the hue from the
  channel's own: not within a sixth of a turn, fully from a third on.
  """
  distance = lambda own: abs((hue - own / 3 + 0.5) % 1 - 0.5)
  channel = lambda own: value - value * saturation * jnp.clip(6 * distance(own) - 1, 0, 1)
  return jnp.stack([channel(own) for own in range(3)])
