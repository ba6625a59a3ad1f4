"""Pictures seen at several scales, mirrored or not; the mean of the logits.

Of pytorch-segmentation: pictures are scaled as `scipy.ndimage.zoom` does with order 1, the end
points aligned, and logits scaled back in the same way. Sizes are data to the compiled programs,
which know multiples of some number alone: pictures of many sizes share a few. The device holds the
network at work on the largest scale, and two arrays of logits of the pictures' size.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.evaluation.inference import MULTIPLE, padded_size, reflected_index, whole
from semiseg_jax.models.network import Network, Size, Variables
from semiseg_jax.models.normalization import mean_levels

SCALES = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)  # the original's; on Cityscapes also 2.25


class _Axis(NamedTuple):
  """Each place along an axis as two places of another axis and their weights; [n]."""

  low: np.ndarray
  high: np.ndarray
  of_low: np.ndarray
  of_high: np.ndarray

  def at(self, places: np.ndarray) -> "_Axis":
    return _Axis(*(values[places] for values in self))


class Multiscale:
  """A network's decisions on batches of pictures of one size.

  decide: from mean logits [B,H,W,K] to arrays [B,H,W,...], pixel by pixel. flip: pictures are seen
  mirrored, too. multiple: scaled pictures are reflected at right and bottom up to multiples of it,
  and so is the size by which programs know a picture; 1 for the original's sizes. blank_edges: as
  the original, see `_blank`.
  """

  def __init__(
    self,
    network: Network,
    decide: Callable[[jax.Array], Any],
    *,
    scales: Sequence[float] = SCALES,
    flip: bool = False,
    multiple: int = MULTIPLE,
    blank_edges: bool = False,
  ):
    self._scales, self._flip, self._blank_edges = scales, flip, blank_edges
    self._enlarged = functools.partial(padded_size, multiple=multiple)
    self._blank = mean_levels(network.normalization) if blank_edges else np.zeros(3, np.float32)
    self._classes, self._see = None, functools.partial(whole, network)
    self._add = jax.jit(functools.partial(_add, network), donate_argnums=1)
    self._decide = jax.jit(lambda sums, views: decide(sums / views))

  def __call__(self, variables: Variables, images: np.ndarray) -> Any:
    """Arrays [B,H',W',...] of levels [B,H,W,3] on the device; what is beyond H, W is for no use."""
    size = images.shape[1:3]
    room = self._enlarged(size)
    margins = [(0, 0), *((0, big - small) for big, small in zip(room, size, strict=True)), (0, 0)]
    images = np.pad(images, margins)  # read by nothing
    if self._classes is None:
      levels = jax.ShapeDtypeStruct(images.shape, jnp.float32)
      self._classes = jax.eval_shape(self._see, variables, levels).shape[-1]
    sums = jnp.zeros((*images.shape[:3], self._classes), jnp.float32)
    mirrors = (False, True) if self._flip else (False,)
    views = list(itertools.product(self._scales, mirrors))
    for scale, mirror in views:
      scaled = scaled_size(size, scale)
      there, back = _ways(size, scaled, mirror, self._enlarged, self._blank_edges)
      sums = self._add(variables, sums, images, self._blank, there, back)
    return self._decide(sums, len(views))


def scaled_size(size: Size, scale: float) -> Size:
  """Halves go to the even neighbour, as in SciPy."""
  return tuple(max(1, round(side * scale)) for side in size)


def _ways(
  size: Size,
  scaled: Size,
  mirror: bool,
  enlarged: Callable[[Size], Size],
  blank_edges: bool = False,
) -> tuple[list[_Axis], list[_Axis]]:
  """From a picture's rows and columns to what the network sees, and from its logits back."""
  there = [_stretched(*sides, blank_edges) for sides in zip(size, scaled, strict=True)]
  back = [_stretched(*sides) for sides in zip(scaled, size, strict=True)]
  if mirror:
    there[1], back[1] = (axis.at(np.s_[::-1]) for axis in (there[1], back[1]))
  reflect = lambda axis, n: axis.at(np.asarray(reflected_index(len(axis.low), n)))
  repeat = lambda axis, n: axis.at(np.minimum(np.arange(n), len(axis.low) - 1))
  there = map(reflect, there, enlarged(scaled))
  return list(there), list(map(repeat, back, enlarged(size)))


def _stretched(n_in: int, n_out: int, blank_edge: bool = False) -> _Axis:
  """Bilinear from n_in places to n_out, whose first and last coincide with theirs."""
  unit = max(n_out - 1, 1)
  low, rest = np.divmod(np.arange(n_out) * (n_in - 1), unit)
  high = np.minimum(low + 1, n_in - 1)
  weight = rest / unit
  there = ~_blank(n_in, n_out) if blank_edge else 1
  return _Axis(*np.int32([low, high]), *np.float32([(1 - weight) * there, weight * there]))


def _blank(n_in: int, n_out: int) -> np.ndarray:
  """bool [n_out]: what SciPy places behind the picture, at 47.000000000000007 of 47, and fills with
  0: the last row or column of some sizes, such as 84 of 48."""
  return np.arange(n_out) * ((n_in - 1) / max(n_out - 1, 1)) > n_in - 1


def _add(
  network: Network,
  variables: Variables,
  sums: jax.Array,
  images: jax.Array,
  blank: jax.Array,
  there: list[_Axis],
  back: list[_Axis],
) -> jax.Array:
  """sums [B,H',W',K] and the logits of one view of the pictures [B,H',W',3]."""
  seen = _resampled(images - blank, there) + blank
  return sums + _resampled(whole(network, variables, seen), back)


def _resampled(x: jax.Array, axes: list[_Axis]) -> jax.Array:
  """[B,h,w,C] -> [B,H,W,C]."""
  for number, axis in enumerate(axes, 1):
    along = lambda values, number=number: jnp.expand_dims(values, (0, 3 - number, 3))
    low, high = x.take(axis.low, number), x.take(axis.high, number)
    x = low * along(axis.of_low) + high * along(axis.of_high)
  return x
