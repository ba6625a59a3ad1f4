"""Comparing a loss with what an original recorded of it."""

import functools
import re
from collections.abc import Callable

import jax
import numpy as np

from tests.golden import Vector

VALUE = {"rtol": 1e-5, "atol": 1e-7}
GRAD = {"rtol": 1e-4, "atol": 1e-7}


def check(case: Vector, name: str, loss: Callable, inputs: np.ndarray, *rest, **options):
  """Value and, where there is one, gradient of loss(inputs, ...); inputs: [..., C] or [B,H,W]."""
  arrays = {i: x for i, x in enumerate(rest) if isinstance(x, (np.ndarray, jax.Array))}
  others = tuple(None if i in arrays else x for i, x in enumerate(rest))
  value, grad = _value_and_grad(loss, inputs, arrays, others, tuple(options.items()))
  np.testing.assert_allclose(value, case[f"{name}__value"], **VALUE, err_msg=name)
  if f"{name}__grad" in case:
    expected = case[f"{name}__grad"]
    expected = np.moveaxis(expected, 1, -1) if expected.ndim == 4 else expected
    np.testing.assert_allclose(grad, expected.reshape(grad.shape), **GRAD, err_msg=name)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _value_and_grad(loss, inputs, arrays, others, options):
  """Compiled once for all cases that differ in arrays alone."""
  rest = [arrays.get(i, other) for i, other in enumerate(others)]
  return jax.value_and_grad(lambda inputs: loss(inputs, *rest, **dict(options)))(inputs)


def names(case: Vector, pattern: str) -> list[str]:
  """Those that match, of what the vector has a value of; there are some."""
  found = [name.removesuffix("__value") for name in case if name.endswith("__value")]
  found = [name for name in found if re.fullmatch(pattern, name)]
  assert found, f"nothing recorded matches {pattern}"
  return found


def number(name: str, letters: str, default: float) -> float:
  """The number behind "_" and some letters in a name, such as 0.5 of t in "noramp_t0p5"."""
  found = re.search(rf"_{letters}(\d+(?:p\d+)?)", name)
  return float(found[1].replace("p", ".")) if found else default
