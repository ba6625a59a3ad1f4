"""The weak and the strong view of the class-wise memory bank (Alonso et al. 2021), on the device.

ClassMix, scale, flip, colour jitter, blur, in this order. Whether each happens, the scale, the crop
and the order of colour operations are drawn once for the batch; only colours and classes are each
image's own. Images are RGB levels throughout; the original jitters BGR levels where its network
takes those, which turns hues the other way round and changes nothing else.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.augment import photometric
from semiseg_jax.augment.continuous import (
  ColorFactors,
  draw_color_factors,
  gaussian_blur,
  jitter_colors,
)
from semiseg_jax.augment.geometry import ScaleCrop, flip
from semiseg_jax.augment.mix import class_mask, draw_pasted_classes, paste
from semiseg_jax.augment.rescale import draw_rescale, rescale

View = tuple[jax.Array, jax.Array, jax.Array | None]  # images, labels, confidence


@dataclasses.dataclass(frozen=True)
class Strength:
  """Probabilities of the stages of one kind of view, and how far they go.

  mix, scale, flip, jitter, blur: probabilities. scale_range: of the scale, uniform. color: see
  `draw_color_factors`. isotropic_blur: one standard deviation, uniform in `sigma`, along both axes;
  else (the code of the original) the first of `sigma` is the vertical one and the second the
  horizontal one. eight_bit_jitter: `photometric.color_jitter` (torchvision's) with these factors.
  """

  mix: float
  scale: float
  flip: float
  jitter: float
  color: float
  blur: float
  scale_range: Sequence[float] = (0.75, 1.75)
  sigma: Sequence[float] = (0.1, 1.5)
  isotropic_blur: bool = False
  eight_bit_jitter: bool = False


WEAK = Strength(mix=0.2, scale=0.5, flip=0.5, jitter=0.2, color=0.125, blur=0.0)
STRONG = Strength(mix=0.75, scale=0.8, flip=0.5, jitter=0.8, color=0.25, blur=0.2)


class Draws(NamedTuple):
  """What one view draws.

  mix, flip, jitter, blur: bool []; pasted: see `draw_pasted_classes`; sigma: float32 [2].
  """

  mix: jax.Array
  pasted: jax.Array
  rescale: ScaleCrop
  flip: jax.Array
  jitter: jax.Array
  colors: ColorFactors
  blur: jax.Array
  sigma: jax.Array


def draw_view(
  key: jax.Array,
  keys: jax.Array,
  labels: jax.Array,
  strength: Strength,
  background: int | None = None,
  may_mix: jax.typing.ArrayLike = True,
) -> Draws:
  """All draws of one view.

  key: equal on all devices; keys: [B], the images' own; labels: int32 [B,H,W]; background: the
  class that is pasted only if it is alone; may_mix: bool [], whether ClassMix has begun.
  """
  mix_key, scale_key, flip_key, jitter_key, order_key, blur_key, sigma_key = jax.random.split(
    key, 7
  )
  class_keys, color_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
  return Draws(
    mix=jax.random.bernoulli(mix_key, strength.mix) & may_mix,
    pasted=draw_pasted_classes(class_keys, labels, background),
    rescale=draw_rescale(scale_key, labels.shape[1:], strength.scale, strength.scale_range),
    flip=jax.random.bernoulli(flip_key, strength.flip),
    jitter=jax.random.bernoulli(jitter_key, strength.jitter),
    colors=draw_color_factors(order_key, color_keys, strength.color),
    blur=jax.random.bernoulli(blur_key, strength.blur),
    sigma=_draw_sigma(sigma_key, strength),
  )


def augment(
  images: jax.Array,
  labels: jax.Array,
  confidence: jax.Array | None,
  draws: Draws,
  strength: Strength,
  axis_name: str | None = None,
) -> View:
  """One view of levels [B,H,W,3], labels int32 [B,H,W] and confidence float32 [B,H,W] or None.

  axis_name: mixing partners come from the batch over all devices; else from the device's own.
  """
  # a collective must not depend on a branch: a mask of nothing instead
  mask = class_mask(labels, draws.pasted) & draws.mix
  view = paste((images.astype(jnp.float32), labels, confidence), mask, axis_name)
  is_scaled = (draws.rescale.size != jnp.array(labels.shape[1:])).any()
  images, labels, confidence = lax.cond(
    is_scaled, lambda view: rescale(*view, draws.rescale, strength.scale_range), lambda x: x, view
  )
  view = jax.tree.map(lambda x: flip(x, draws.flip), (images, labels, confidence))
  images, labels, confidence = view
  jitter = _jitter_eight_bits if strength.eight_bit_jitter else jitter_colors
  images = lax.cond(draws.jitter, lambda x: jitter(x, draws.colors), lambda x: x, images)
  images = lax.cond(draws.blur, lambda x: gaussian_blur(x, draws.sigma), lambda x: x, images)
  return images, labels, confidence


def _draw_sigma(key: jax.Array, strength: Strength) -> jax.Array:
  if not strength.isotropic_blur:
    return jnp.array(strength.sigma, jnp.float32)
  low, high = strength.sigma
  return jnp.broadcast_to(jax.random.uniform(key, (), jnp.float32, low, high), (2,))


def _jitter_eight_bits(images: jax.Array, colors: ColorFactors) -> jax.Array:
  batch = len(images)
  order = jnp.broadcast_to(colors.order, (batch, 4))
  draws = photometric.ColorJitter(jnp.ones(batch, bool), *colors[:4], order)
  return photometric.color_jitter(jnp.round(images), draws)
