"""A bank as lists of rows, and back."""

import jax.numpy as jnp
import numpy as np

from semiseg_jax.losses.bank import Bank


def contents(bank: Bank) -> list[np.ndarray]:
  """The rows of each class, newest first, on the host; bank: all of it."""
  rows, count, head = (np.asarray(x) for x in (bank.rows, bank.count, bank.head))
  newest_first = lambda c: (head[c] + np.arange(count[c])) % rows.shape[1]
  return [rows[c, newest_first(c)] for c in range(rows.shape[0])]


def from_contents(rows: list[np.ndarray], slots: int) -> Bank:
  """The bank of given contents, as `contents` has them."""
  padded = np.zeros((len(rows), slots, rows[0].shape[1]), np.float32)
  for of_class, block in zip(rows, padded, strict=True):
    block[: len(of_class)] = of_class
  count = jnp.array([len(of_class) for of_class in rows], jnp.int32)
  return Bank(jnp.asarray(padded), count, jnp.zeros_like(count))
