"""Sliding windows: a picture of any size seen through windows of one, overlaps averaged.

Of pytorch-segmentation. The device holds the network at work on `batch` windows and one row of
windows' sums, float32 [window's height, the picture's width, K]; the picture and what is decided of
it stay on the host. The network is compiled once for each size of windows, the rest once for each
such size and width in steps of 256.
"""

import collections
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semiseg_jax.evaluation.inference import raised, whole
from semiseg_jax.models.network import Network, Size, Variables
from semiseg_jax.models.normalization import mean_levels

_FRACTION = 2.5  # of a picture's sides are its windows' sides, where they are not given
_OVERLAP = 1 / 3
_WIDTHS = 256  # the sums' width is raised to multiples of it
_IN_FLIGHT = 2  # batches of windows given to the device before the host waits for the first


class Grid(NamedTuple):
  """window and stride: (height, width). rows, columns: where windows start."""

  window: Size
  stride: Size
  rows: tuple[int, ...]
  columns: tuple[int, ...]


def make_grid(
  size: Size,
  window: Size | None = None,
  stride: Size | None = None,
  one_stride: bool = False,
) -> Grid:
  """The windows on a picture of that size (height, width).

  Defaults are the original's: windows of sides int(side // 2.5), and a stride of two thirds of
  their height. Where that is more than their width the columns have a stride of their own;
  one_stride takes it nonetheless, as the original does, so that tall pictures have gaps.
  """
  window = window or tuple(max(1, int(side // _FRACTION)) for side in size)
  if stride is None:
    down, across = map(_stride, window)
    stride = (down, down if one_stride or down <= window[1] else across)
  return Grid(window, stride, *map(_starts, size, window, stride))


def _stride(side: int) -> int:
  """Two thirds, rounded up; 1 more for many multiples of 3, whose product in float64 lies just
  above, as in the recorded vectors: 15 -> 11."""
  return math.ceil(side * (1 - _OVERLAP))


def _starts(side: int, window: int, stride: int) -> tuple[int, ...]:
  count = math.ceil(max(side - window, 0) / stride) + 1
  return tuple(start for start in range(0, count * stride, stride) if start < side)


class Sliding:
  """A network's decisions on whole pictures through windows.

  grid: `make_grid` of a picture's size. decide: from mean logits [h,w,K] to arrays [h,w,...], pixel
  by pixel. flip: windows are seen mirrored, too. batch: windows at a time.
  """

  def __init__(
    self,
    network: Network,
    decide: Callable[[jax.Array], Any],
    *,
    grid: Callable[[Size], Grid] = make_grid,
    flip: bool = True,
    batch: int = 1,
  ):
    self._grid, self._flip, self._batch = grid, flip, batch
    self._classes = None
    self._margin = mean_levels(network.normalization)  # 0 to the network, as in the original
    self._see = jax.jit(functools.partial(whole, network))
    self._add = jax.jit(_add, donate_argnums=0)
    self._take = jax.jit(functools.partial(_take, decide), donate_argnums=0)

  def __call__(self, variables: Variables, image: np.ndarray) -> Any:
    """numpy arrays [H,W,...] of levels [H,W,3]; NaN logits where no window reaches."""
    size = image.shape[:2]
    grid = self._grid(size)
    height, step = grid.window[0], grid.stride[0]
    width = raised(grid.columns[-1] + grid.window[1], _WIDTHS)
    down = _covers(grid.rows, height, grid.rows[-1] + height + step)
    across = _covers(grid.columns, grid.window[1], width)
    if self._classes is None:
      windows = jax.ShapeDtypeStruct((self._batch, *grid.window, 3), jnp.float32)
      self._classes = jax.eval_shape(self._see, variables, windows).shape[-1]
    sums = jnp.zeros((height, width, self._classes), jnp.float32)
    out, decided = None, []
    for top in grid.rows:
      sums = self._row(variables, sums, image[top : top + height], grid)
      out = _put(out, size, decided)  # of the windows above, while the device sees these
      decided = []
      # rows above the next windows are done; below the last windows' start, all are
      for start in range(top, top + (height if top == grid.rows[-1] else step), step):
        sums, rows = self._take(sums, down[start : start + step], across)
        decided.append((start, rows))
    return _put(out, size, decided)

  def _row(self, variables: Variables, sums: jax.Array, band: np.ndarray, grid: Grid) -> jax.Array:
    """The sums with all windows of one row added; band: their part of the picture."""
    waiting = collections.deque()
    for first in range(0, len(grid.columns), self._batch):
      lefts = grid.columns[first : first + self._batch]
      windows = np.empty((self._batch, *grid.window, 3), np.float32)
      windows[:] = self._margin
      for window, left in zip(windows, lefts, strict=False):
        part = band[:, left : left + grid.window[1]]
        window[: part.shape[0], : part.shape[1]] = part
      views = [windows, windows[:, :, ::-1]] if self._flip else [windows]
      waiting.append([self._see(variables, view) for view in views])
      starts = np.resize(np.int32(lefts), self._batch)
      sums = self._add(sums, waiting[-1], starts, len(lefts))
      if len(waiting) > _IN_FLIGHT:
        jax.block_until_ready(waiting.popleft())
    return sums


def _covers(starts: tuple[int, ...], window: int, length: int) -> np.ndarray:
  """float32 [length]: by how many of the windows along one axis each place is covered."""
  counts = np.zeros(length, np.float32)
  for start in starts:
    counts[start : start + window] += 1
  return counts


def _add(sums: jax.Array, views: list[jax.Array], lefts: jax.Array, count: int) -> jax.Array:
  """sums [h,W,K] and the first `count` windows' logits [B,h,w,K], those of views averaged."""
  logits = views[0] if len(views) == 1 else 0.5 * (views[0] + views[1][:, :, ::-1])

  def one(i: int, sums: jax.Array) -> jax.Array:
    start = (0, lefts[i], 0)
    there = lax.dynamic_slice(sums, start, logits.shape[1:])
    return lax.dynamic_update_slice(sums, there + logits[i], start)

  return lax.fori_loop(0, count, one, sums)


def _take(
  decide: Callable[[jax.Array], Any], sums: jax.Array, down: jax.Array, across: jax.Array
) -> tuple[jax.Array, Any]:
  """The sums moved up by the uppermost rows, and what is decided of those; down, across: covers."""
  step = len(down)
  mean = sums[:step] / (down[:, None] * across)[..., None]
  return jnp.concatenate([sums[step:], jnp.zeros_like(sums[:step])]), decide(mean)


def _put(out: Any, size: Size, decided: list[tuple[int, Any]]) -> Any:
  """out, made where there is none, with rows [h,w,...] put to where each begins."""

  def put(top: int, whole: np.ndarray, rows: jax.Array) -> None:
    room = whole[top : top + len(rows)]
    room[:] = np.asarray(rows)[: len(room), : size[1]]

  for top, rows in decided:
    if out is None:
      out = jax.tree.map(lambda x: np.empty((*size, *x.shape[2:]), x.dtype), rows)
    jax.tree.map(functools.partial(put, top), out, rows)
  return out
