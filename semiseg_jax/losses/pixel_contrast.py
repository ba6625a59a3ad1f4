"""Contrast between pixels drawn from each image and class (C3-SemiSeg, Zhou et al., ICCV 2021).

Source: `PixelContrastLoss` of the authors' code, and the same of Wang et al., ICCV 2021.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.backend import platform
from semiseg_jax.collectives import all_gather, device_index, psum

_BASE_TEMPERATURE = 0.1  # the loss is in units of the temperature over this
_EXACT = lax.Precision.HIGHEST  # similarities in full float32 where matrix units would round
_MIN_NORM = 1e-12  # by which a vector is divided
_NO_NEGATIVES = -1e30  # the logarithm of an empty sum, finite so that gradients stay so
_BYTES_AT_ONCE = 2**30  # of the similarities of all pairs, on an accelerator


class Sample(NamedTuple):
  """V pixels of each of C classes in each of B images.

  pixel: int32 [B,C,V] place in the image, row by row; is_group: bool [B,C], False where there is no
  group, and the pixels mean nothing.
  """

  pixel: jax.Array
  is_group: jax.Array


def pixel_contrast_loss(
  embedding: jax.Array,
  labels: jax.Array,
  predictions: jax.Array | None,
  contrast: jax.Array | None = None,
  *,
  num_classes: int,
  num_pixels: int,
  temperature: float,
  key: jax.Array | None = None,
  priorities: jax.Array | None = None,
  every_class: bool = False,
  image_rank: jax.Array | None = None,
  axis_name: str | None = None,
  scope: str = "global",
) -> jax.Array:
  """Pulls together the drawn pixels of one class, in whichever image, and pushes apart the others.

  `sample_pixels` draws num_pixels pixels of each class in each image; `group_contrast` is the loss.

  embedding: [B,h,w,D], normalised here; labels: int32 [B,h,w], IGNORE where a pixel takes no part;
  predictions: int32 [B,h,w], or None to draw without regard to them; contrast: [B,h,w,D], another
  embedding of the same pixels, as a constant, which the drawn ones are compared with instead of
  with one another (the pair that is one pixel in both left out). key: equal on all devices; or
  priorities [B,h*w] in its place. image_rank: [B] place of each image in the global batch (default:
  device after device).

  scope "global" compares a device's pixels with those of all devices, and N devices compute what
  one would. The vectors to compare with travel, B*C*V*D floats from each device whatever the size
  of the images: 3 MiB for 8 images, 19 classes, 20 pixels, 256 channels. scope "device" compares
  with the device's own, as the original does; its mean is over a device's pixels.

  Returns a float32 scalar, 0 without any group. Raises ValueError for another scope, for fewer than
  two pixels, or without key and priorities.
  """
  if scope not in ("global", "device"):
    raise ValueError(f"scope={scope!r}: choose from 'global', 'device'")
  if num_pixels < 2:
    raise ValueError(f"num_pixels={num_pixels}: a pixel needs another one of its group, 2 or more")
  images, dim = labels.shape[0], embedding.shape[-1]
  flat = lambda x: None if x is None else x.reshape(images, -1)
  labels, predictions = flat(labels), flat(predictions)
  if priorities is None:
    if key is None:
      raise ValueError("pixel_contrast_loss needs a key to draw pixels with, or priorities")
    if image_rank is None:
      image_rank = device_index(axis_name) * images + jnp.arange(images)
    priorities = draw_priorities(key, image_rank, labels.shape[1])
  pixel, is_group = sample_pixels(
    labels, predictions, priorities, num_classes, num_pixels, every_class
  )

  vectors = lambda maps: _unit_vectors(maps.reshape(images, -1, dim), pixel)
  anchors = vectors(embedding)
  others = anchors if contrast is None else vectors(lax.stop_gradient(contrast))
  pool_axis = axis_name if scope == "global" else None
  others, is_other = all_gather((others, is_group), pool_axis)
  own_image = device_index(pool_axis) * images
  return group_contrast(
    anchors,
    is_group,
    others,
    is_other,
    temperature,
    own_image=own_image,
    both_sides=contrast is None,
    axis_name=pool_axis,
  )


def draw_priorities(key: jax.Array, image_rank: jax.Array, pixels: int) -> jax.Array:
  """Random numbers uint32 [B,pixels] that depend on nothing but the key and an image's rank [B]."""
  draw = lambda rank: jax.random.bits(jax.random.fold_in(key, rank), (pixels,), jnp.uint32)
  return jax.vmap(draw)(image_rank)


def sample_pixels(
  labels: jax.Array,
  predictions: jax.Array | None,
  priorities: jax.Array,
  num_classes: int,
  num_pixels: int,
  every_class: bool = False,
) -> Sample:
  """V pixels, without repetition, of each class that has more than V in an image.

  Half of them (rounded down) are hard, which means predicted as another class, and the rest easy.
  Where one kind has fewer than V/2, all of these are taken, and the other kind fills up. Of either
  kind those of lowest priority are taken, lowest first, the hard ones before the easy ones.

  labels: int32 [B,P]; predictions: [B,P], or None, so that all pixels are of one kind; priorities:
  [B,P]; every_class: class 0 has groups too, which the original leaves out (it is the road).
  """
  images, pixels = labels.shape
  classes = jnp.arange(num_classes)
  is_hard = jnp.zeros(labels.shape, bool) if predictions is None else predictions != labels
  is_class = labels[:, None, :] == classes[:, None]  # [B,C,P]
  total = is_class.sum(axis=2)
  hard = (is_class & is_hard[:, None, :]).sum(axis=2)

  # One sort puts an image's pixels in order by class, then kind, then priority.
  kind = 2 * labels + ~is_hard
  place_in_image = jnp.broadcast_to(jnp.arange(pixels), labels.shape)
  order = lax.sort((kind, priorities, place_in_image), dimension=1, num_keys=2)[2]

  taken_hard = jnp.clip(num_pixels // 2, num_pixels - (total - hard), hard)[..., None]
  number = jnp.arange(num_pixels)
  in_class = jnp.where(number < taken_hard, number, hard[..., None] + number - taken_hard)
  first = (jnp.cumsum(total, axis=1) - total)[..., None]
  pixel = order[jnp.arange(images)[:, None, None], jnp.minimum(first + in_class, pixels - 1)]
  return Sample(pixel, (total > num_pixels) & (every_class | (classes > 0)))


def group_contrast(
  anchors: jax.Array,
  is_anchor: jax.Array,
  others: jax.Array,
  is_other: jax.Array,
  temperature: float,
  *,
  own_image: jax.typing.ArrayLike = 0,
  both_sides: bool = True,
  axis_name: str | None = None,
) -> jax.Array:
  """Mean over anchors x_i, and over the vectors y_j of their class, of the contrast of each pair:

    T/0.1 (-log(e^s_ij / (e^s_ij + sum_k e^s_ik))),  s_ij = x_i . y_j / T,

  with k over the vectors of other classes, so that other pairs of a class do not count below.

  anchors: [B,C,V,D] of norm 1, this device's groups, those that there are where is_anchor [B,C];
  others: [B',C,V',D] and is_other [B',C], of all devices. own_image: the place among the others of
  the first anchor's image: an anchor makes no pair with the same pixel. both_sides: whether the
  others have a gradient too. The mean is over the anchors of all devices of the axis. 0 without
  anchors; NaN if one has none to make a pair with, which cannot be if the others are of the same
  pixels.

  A CPU looks at one class of anchors after the other, an accelerator at all of them if their pairs
  fit 1 GiB. Value and gradient come together, so that no matrix of pairs waits for a backward pass.
  The result is therefore linear in the vectors around their present values: right to first order,
  and not meant to be differentiated twice.
  """
  rows, is_row = _by_class(anchors, is_anchor)
  columns, is_column = _by_class(others, is_other)
  fixed_rows, fixed_columns = lax.stop_gradient((rows, columns))
  place = own_image * anchors.shape[2] + jnp.arange(rows.shape[1])
  is_same = place[:, None] == jnp.arange(columns.shape[1])
  num_classes, num_rows = rows.shape[:2]
  pair_bytes = 4 * num_classes * num_rows * is_column.size
  at_once = platform() != "cpu" and pair_bytes <= _BYTES_AT_ONCE
  sum_over = _sum_over_classes if at_once else _sum_over_rows
  value_and_slope = jax.value_and_grad(sum_over, (0, 1) if both_sides else 0)

  def add_classes(column_slope: jax.Array, some: tuple) -> tuple[jax.Array, tuple]:
    own_class, row, is_row = some
    value, slope = value_and_slope(
      row, fixed_columns, own_class, is_row, is_column, is_same, temperature
    )
    if both_sides:
      slope, more = slope
      column_slope += more
    return column_slope, (value, slope)

  every = jnp.arange(num_classes), fixed_rows, is_row
  start = jnp.zeros_like(columns)
  column_slope, (total, row_slope) = (
    add_classes(start, every) if at_once else lax.scan(add_classes, start, every)
  )
  total = total.sum() + (row_slope * (rows - fixed_rows)).sum()
  if both_sides:
    total += (column_slope * (columns - fixed_columns)).sum()
  total, count = psum((total, is_row.sum()), axis_name)
  return temperature / _BASE_TEMPERATURE * total / jnp.maximum(count, 1)


def _sum_over_classes(
  rows: jax.Array,
  columns: jax.Array,
  own_class: jax.Array,
  is_row: jax.Array,
  is_column: jax.Array,
  is_same: jax.Array,
  temperature: float,
) -> jax.Array:
  """Sum of `_sum_over_rows` over the classes of rows [A,R,D]; own_class: [A]; is_row: [A,R]."""
  of_class = jax.vmap(_sum_over_rows, (0, None, 0, 0, None, None, None))
  return of_class(rows, columns, own_class, is_row, is_column, is_same, temperature).sum()


def _sum_over_rows(
  row: jax.Array,
  columns: jax.Array,
  own_class: jax.Array,
  is_row: jax.Array,
  is_column: jax.Array,
  is_same: jax.Array,
  temperature: float,
) -> jax.Array:
  """Sum over the rows [R,D] of one class of the mean over their pairs.

  columns: [C,N,D]; is_row: [R]; is_column: [C,N]; is_same: [R,N], no pair.
  """
  is_negative = is_column & (jnp.arange(len(columns)) != own_class)[:, None]
  away = jnp.einsum("rd,cnd->rcn", row, columns, precision=_EXACT) / temperature
  away = jnp.where(is_negative, away, _NO_NEGATIVES)
  negatives = jax.nn.logsumexp(away, axis=(1, 2))[:, None]
  towards = jnp.matmul(row, columns[own_class].T, precision=_EXACT) / temperature
  is_pair = is_column[own_class] & ~is_same
  loss = jnp.where(is_pair, jax.nn.softplus(negatives - towards), 0).sum(axis=1)
  pairs = jnp.where(is_row, is_pair.sum(axis=1), 1)
  return jnp.where(is_row, loss / pairs, 0).sum()


def _unit_vectors(maps: jax.Array, pixel: jax.Array) -> jax.Array:
  """Normalised vectors [B,C,V,D] of maps [B,P,D] at pixels [B,C,V]."""
  rows = maps[jnp.arange(len(maps))[:, None, None], pixel].astype(jnp.float32)
  squares = jnp.square(rows).sum(axis=-1, keepdims=True)
  return rows * lax.rsqrt(jnp.maximum(squares, _MIN_NORM**2))


def _by_class(vectors: jax.Array, is_group: jax.Array) -> tuple[jax.Array, jax.Array]:
  """[B,C,V,D] as [C,B*V,D], and [B,C] as [C,B*V]."""
  _, num_classes, num_pixels, dim = vectors.shape
  rows = vectors.swapaxes(0, 1).reshape(num_classes, -1, dim)
  return rows, jnp.repeat(is_group.T, num_pixels, axis=1)
