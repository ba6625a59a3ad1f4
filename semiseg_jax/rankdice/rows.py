"""Probabilities as one row for each image and class, and sums along rows."""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

_FOLDS = 8


def to_rows(probs: jax.Array) -> jax.Array:
  """[N,H,W,K], or any other spatial axes -> float32 [N*K,H*W], in memory in this order.

  Raises ValueError without a spatial axis.
  """
  if probs.ndim < 3:
    raise ValueError(f"probabilities [N,H,W,K] are needed, these are {list(probs.shape)}")
  images, classes = probs.shape[0], probs.shape[-1]
  pixels = probs.reshape(images, -1, classes).astype(jnp.float32)
  rows = pixels.swapaxes(1, 2).reshape(images * classes, -1)
  # else XLA would leave the classes last, and go through memory in leaps wherever rows are read
  return with_layout_constraint(rows, Layout((0, 1)))


def row_sums(rows: jax.Array, *terms: Callable[[jax.Array], jax.Array]) -> jax.Array:
  """float32 [len(terms),R], the sums along rows [R,P] of what each function makes of parts [R,Q].

  XLA adds numbers up one by one on a CPU unless they stand in an array, each waiting for the one
  before. Eighths of a row that are first added to each other take a quarter of the time.
  """
  add = functools.partial(functools.reduce, operator.add)
  return _folded(rows, terms, add, lambda parts: parts.sum(-1), operator.add)


def count_confident(rows: jax.Array) -> jax.Array:
  """float32 [R], how many probabilities reach 0.5."""
  return row_sums(rows, lambda part: (part >= 0.5).astype(jnp.float32))[0]


def row_max(rows: jax.Array, term: Callable[[jax.Array], jax.Array] = jnp.asarray) -> jax.Array:
  """float32 [R], the largest along rows [R,P] of what a function makes of parts [R,Q]."""
  larger = functools.partial(functools.reduce, jnp.maximum)
  return _folded(rows, [term], larger, lambda parts: parts.max(-1), jnp.maximum)[0]


def _folded(rows, terms, fold: Callable, reduce: Callable, join: Callable) -> jax.Array:
  width = rows.shape[-1] // _FOLDS
  rest = rows[:, width * _FOLDS :]
  total = lambda parts: reduce(jnp.stack([fold(list(map(term, parts))) for term in terms]))
  if width == 0:
    return total([rest])
  folded = total([rows[:, i * width : (i + 1) * width] for i in range(_FOLDS)])
  return join(folded, total([rest])) if rest.shape[-1] else folded
