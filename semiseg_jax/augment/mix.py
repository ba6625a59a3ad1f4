"""Mixing inside a batch: CutOut, CutMix and ClassMix. The partner is the next image of the batch.

Masks are bool [B,H,W]: True keeps an image's own pixel, except in `paste`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semiseg_jax.augment.levels import BLACKED_OUT, is_member
from semiseg_jax.collectives import device_count
from semiseg_jax.labels import IGNORE


class Boxes(NamedTuple):
  """One box per image, int32 [B] each: rows y0 <= y < y1, columns x0 <= x < x1."""

  y0: jax.Array
  y1: jax.Array
  x0: jax.Array
  x1: jax.Array


def draw_boxes(keys: jax.Array, shape: tuple[int, int]) -> Boxes:
  """Boxes of half the image's area. keys: [B]; shape: (H, W).

  The width is a uniform whole number in [trunc(W/2 + 1), W), the height H W / 2 / width rounded
  (half to even), the place uniform. Images less than three pixels wide get their whole width.
  """
  height, width = shape
  narrowest = width // 2 + 1

  def draw(key: jax.Array) -> Boxes:
    width_key, x_key, y_key = jax.random.split(key, 3)
    w = jax.random.randint(width_key, (), narrowest, max(width, narrowest + 1))
    w = jnp.minimum(w, width)
    h, rest = jnp.divmod(height * width, 2 * w)
    h += (2 * rest > 2 * w) | ((rest == w) & (h % 2 == 1))
    x = jax.random.randint(x_key, (), 0, width - w + 1)
    y = jax.random.randint(y_key, (), 0, height - h + 1)
    return Boxes(y, y + h, x, x + w)

  return jax.vmap(draw)(keys)


def draw_aspect_boxes(keys: jax.Array, shape: tuple[int, int]) -> Boxes:
  """Boxes of half the image's area, by `aspect_boxes`. keys: [B]; shape: (H, W)."""
  uniform = jax.vmap(lambda key: jax.random.uniform(key, (3,)))(keys)
  return aspect_boxes(0.5, uniform[:, 0], uniform[:, 1:], shape)


def aspect_boxes(
  proportion: jax.typing.ArrayLike, aspect: jax.Array, position: jax.Array, shape: tuple[int, int]
) -> Boxes:
  """Boxes of proportion^aspect of the height, and of as much of the width as gives the proportion.

  proportion: [] or [B], of the area; aspect: [B] and position: [B,2], (y, x), in [0, 1]. Sides are
  rounded, and so are places (half to even), from one edge to the other.
  Source: C3-SemiSeg, after French et al., BMVC 2020.
  """
  y_share = jnp.power(proportion, aspect)
  shares = jnp.stack([y_share, proportion / y_share], axis=1)
  size = jnp.round(shares * jnp.array(shape))
  start = jnp.round((jnp.array(shape) - size) * position)
  (y0, x0), (y1, x1) = start.astype(jnp.int32).T, (start + size).astype(jnp.int32).T
  return Boxes(y0, y1, x0, x1)


def draw_fitting_boxes(
  keys: jax.Array,
  shape: tuple[int, int],
  share: tuple[float, float] = (0.02, 0.4),
  aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Boxes:
  """For half of the images a box that is drawn until it lies within; the others have none.

  Its share of the area is drawn once; then its height over width, uniformly, and its corner, until
  it fits. keys: [B]; shape: (H, W). Source: UniMatch, `obtain_cutmix_box`.
  """
  height, width = shape

  def draw(key: jax.Array) -> Boxes:
    coin, area_key, key = jax.random.split(key, 3)
    area = jax.random.uniform(area_key, (), jnp.float32, *share) * (height * width)

    def attempt(state: tuple[jax.Array, Boxes]) -> tuple[jax.Array, Boxes]:
      key, *keys = jax.random.split(state[0], 4)
      h, w = sides(area, jax.random.uniform(keys[0], (), jnp.float32, *aspect))
      y = jax.random.randint(keys[1], (), 0, height)
      x = jax.random.randint(keys[2], (), 0, width)
      return key, Boxes(y, y + h, x, x + w)

    does_not_fit = lambda state: (state[1].y1 > height) | (state[1].x1 > width)
    _, box = lax.while_loop(does_not_fit, attempt, attempt((key, None)))
    has_one = jax.random.bernoulli(coin)
    return jax.tree.map(lambda side: jnp.where(has_one, side, 0), box)

  return jax.vmap(draw)(keys)


def sides(area: jax.Array, aspect: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Height and width, truncated, of a box with that area in pixels and height over width."""
  truncated = lambda x: jnp.sqrt(x).astype(jnp.int32)
  return truncated(area * aspect), truncated(area / aspect)


def box_mask(boxes: Boxes, shape: tuple[int, int]) -> jax.Array:
  """False inside each image's box: bool [B,H,W]."""
  y0, y1, x0, x1 = (side[:, None] for side in boxes)
  rows, columns = jnp.arange(shape[0]), jnp.arange(shape[1])
  in_rows = (rows >= y0) & (rows < y1)
  in_columns = (columns >= x0) & (columns < x1)
  return ~(in_rows[:, :, None] & in_columns[:, None, :])


def draw_classes(keys: jax.Array, labels: jax.Array) -> jax.Array:
  """Half of each image's labels, rounded down, at random: bool [B,256], indexed by label.

  keys: [B]; labels: int [B,H,W] in 0..255. IGNORE counts as a label of its own where it occurs.
  """
  present = present_labels(labels)
  return _choose(keys, present, present.sum(1) // 2)


def draw_pasted_classes(
  keys: jax.Array, labels: jax.Array, background: int | None = None
) -> jax.Array:
  """The classes that each image gives to the one before it, with `paste`: bool [B,256].

  Of an image's n labels, n // 2 + 1 at random. IGNORE is none of them where there is another, nor
  then is `background` (Alonso et al. 2021: 0 for Pascal). keys: [B]; labels: int [B,H,W] in 0..255.
  """
  present = present_labels(labels)
  for label in (IGNORE,) if background is None else (IGNORE, background):
    is_single = present.sum(1, keepdims=True) == 1
    present &= is_single | (jnp.arange(256) != label)
  return _choose(keys, present, present.sum(1) // 2 + 1)


def _choose(keys: jax.Array, members: jax.Array, count: jax.Array) -> jax.Array:
  """`count` [B] of the members [B,256] of each image, at random: bool [B,256]."""
  scores = jax.vmap(lambda key: jax.random.uniform(key, (256,)))(keys)
  place = jnp.argsort(jnp.argsort(jnp.where(members, scores, 2), axis=1), axis=1)
  return place < count[:, None]


def present_labels(labels: jax.Array) -> jax.Array:
  """Which of 0..255 occur in each label map [B,H,W]: bool [B,256]."""
  word, bit = labels >> 5, jnp.uint32(1) << (labels & 31).astype(jnp.uint32)
  bits = jnp.where(word[..., None] == jnp.arange(8), bit[..., None], 0)
  words = lax.reduce(bits, np.uint32(0), lax.bitwise_or, (1, 2))
  return (words[:, :, None] >> jnp.arange(32, dtype=jnp.uint32) & 1 == 1).reshape(-1, 256)


def class_mask(labels: jax.Array, kept: jax.Array) -> jax.Array:
  """True on the pixels of [B,H,W] whose label is kept [B,256]."""
  return is_member(labels, kept[:, None, None])


def roll_partner(x: Any, axis_name: str | None = None) -> Any:
  """The next image of the batch, cyclically, in every array [B,...] of a pytree.

  With axis_name, of the batch over all devices, each of which holds its contiguous part: the first
  image travels to the device before. Without, of the device's own batch.
  """
  first = jax.tree.map(lambda leaf: leaf[:1], x)
  if axis_name is not None:
    count = device_count(axis_name)
    first = lax.ppermute(first, axis_name, [((i + 1) % count, i) for i in range(count)])
  return jax.tree.map(lambda leaf, after: jnp.concatenate([leaf[1:], after]), x, first)


def reversed_partner(x: Any, axis_name: str | None = None) -> Any:
  """The image as far from the end as this one is from the start, in every array [B,...].

  With axis_name, of the batch over all devices; without, of the device's own.
  """
  if axis_name is not None:
    last = device_count(axis_name) - 1
    x = lax.ppermute(x, axis_name, [(i, last - i) for i in range(last + 1)])
  return jax.tree.map(lambda leaf: leaf[::-1], x)


def mix_reversed(view: Any, mask: jax.Array, axis_name: str | None = None) -> Any:
  """As `mix`, with the partners of `reversed_partner` (UniMatch)."""
  return _select(mask, view, reversed_partner(view, axis_name))


def mix(view: Any, mask: jax.Array, axis_name: str | None = None) -> Any:
  """Own pixels where the mask [B,H,W] holds, the partner's elsewhere (CutMix, ClassMix).

  view: pytree of arrays [B,H,W,...]; axis_name: see `roll_partner`.
  """
  return _select(mask, view, roll_partner(view, axis_name))


def paste(view: Any, mask: jax.Array, axis_name: str | None = None) -> Any:
  """As `mix`, but the partner's pixels where the partner's own mask holds (Alonso et al. 2021)."""
  partner, mask = roll_partner((view, mask), axis_name)
  return _select(mask, partner, view)


def cutout(
  view: tuple[jax.Array, jax.Array, jax.Array],
  mask: jax.Array,
  fill: jax.typing.ArrayLike = BLACKED_OUT,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Blacks out where the mask does not hold: image `fill` [C], label IGNORE, confidence 0."""
  return _select(mask, view, (jnp.asarray(fill, view[0].dtype), IGNORE, 0))


def _select(mask: jax.Array, view: Any, other: Any) -> Any:
  """Every array [B,H,W,...] of a pytree where the mask holds, elsewhere what `other` has for it."""
  at = lambda array: mask.reshape(*mask.shape, *[1] * (array.ndim - mask.ndim))
  return jax.tree.map(lambda array, value: jnp.where(at(array), array, value), view, other)
