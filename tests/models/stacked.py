"""The originals' selectors, a small network for each class, as the stacked arrays of ours."""

from typing import Any

import jax
import numpy as np
from flax import nnx

from semiseg_jax.models.layers import Maker
from semiseg_jax.models.selectors import ClassSelectors

PIXELS, MEMORY = "contrastive_class_selector_", "contrastive_class_selector_memory"


class Both(nnx.Module):
  """Selectors of pixels and of the memory side by side, as a network has them."""

  def __init__(self, num_classes: int, dim: int, axis_name: str | None = None):
    make = Maker(np.random.default_rng(0), axis_name=axis_name)
    self.selectors = ClassSelectors(num_classes, dim, make)
    self.memory_selectors = ClassSelectors(num_classes, dim, make)


def selectors(num_classes: int, dim: int, axis_name: str | None = None) -> ClassSelectors:
  return ClassSelectors(num_classes, dim, Maker(np.random.default_rng(0), axis_name=axis_name))


def params(state: dict[str, np.ndarray], prefix: str, num_classes: int) -> dict:
  """Parameters, or their gradients, of the classes 0 to num_classes - 1."""
  stack = lambda key: _stack(state, prefix, num_classes, key)
  linear = lambda layer: {
    "kernel": stack(f"{layer}.weight").swapaxes(1, 2),
    "bias": stack(f"{layer}.bias"),
  }
  norm = {"scale": stack("1.weight"), "bias": stack("1.bias")}
  return {"0": linear(0), "1": norm, "3": linear(3)}


def statistics(state: dict[str, np.ndarray], prefix: str, num_classes: int) -> dict:
  stack = lambda key: _stack(state, prefix, num_classes, key)
  return {"1": {"mean": stack("1.running_mean"), "var": stack("1.running_var")}}


def part(case: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
  """The arrays behind a prefix, which is cut off."""
  return {key.removeprefix(prefix): x for key, x in case.items() if key.startswith(prefix)}


def _stack(state: dict, prefix: str, num_classes: int, key: str) -> np.ndarray:
  return np.stack([state[f"{prefix}{c}.{key}"] for c in range(num_classes)])


def assert_close(ours: Any, expected: Any, tolerance: float) -> None:
  """Every leaf to within tolerance times its largest value.

  A leaf of small values, such as the gradient of a bias that BatchNorm takes out again, is rounding
  error: it is measured by a tenth of the largest value of all.
  """
  largest = lambda x: np.abs(x).max(initial=0)
  floor = max(largest(x) for x in jax.tree.leaves(expected)) / 10

  def check(a, e):
    np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * max(largest(e), floor))

  jax.tree.map(check, ours, expected)
