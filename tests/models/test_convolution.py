"""The convolution's written gradients are the compiler's own, and quick in branches."""

import re

import jax
import numpy as np
import pytest
from jax import lax

from semiseg_jax.models.convolution import conv

pytestmark = pytest.mark.skipif(
  jax.default_backend() != "cpu", reason="the gradients of other platforms are the compiler's own"
)


def _plain(x, kernel, padding, stride, dilation):
  pads = [(p, p) for p in padding]
  dims = ("NHWC", "HWIO", "NHWC")
  return lax.conv_general_dilated(
    x, kernel, (stride,) * 2, pads, rhs_dilation=(dilation,) * 2, dimension_numbers=dims
  )


def _gradients(function, x, kernel, slope, *settings):
  def run(x, kernel, slope):
    y, pullback = jax.vjp(lambda x, kernel: function(x, kernel, *settings), x, kernel)
    return y, *pullback(slope)

  return jax.jit(run)(x, kernel, slope)


@pytest.mark.parametrize(
  ("size", "taps", "padding", "stride", "dilation"),
  [
    ((9, 10), (1, 1), (0, 0), 1, 1),
    ((9, 10), (1, 1), (0, 0), 2, 1),
    ((10, 7), (1, 1), (2, 1), 3, 1),
    ((9, 10), (3, 3), (1, 1), 1, 1),
    ((9, 10), (3, 3), (0, 2), 2, 1),
    ((10, 7), (3, 1), (1, 3), 3, 2),
    ((10, 9), (3, 3), (2, 2), 2, 2),
    ((10, 9), (7, 7), (3, 3), 2, 1),
  ],
)
def test_gradients_are_the_compilers(size, taps, padding, stride, dilation):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, *size, 3)).astype(np.float32)
  kernel = rng.normal(size=(*taps, 3, 4)).astype(np.float32)
  settings = (padding, stride, dilation)
  slope = rng.normal(size=conv(x, kernel, *settings).shape).astype(np.float32)
  ours = _gradients(conv, x, kernel, slope, *settings)
  theirs = _gradients(_plain, x, kernel, slope, *settings)
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_branches_have_the_convolutions_that_are_quick():
  x, kernel = np.zeros((2, 8, 8, 4), np.float32), np.zeros((3, 3, 4, 4), np.float32)
  gradients = jax.grad(lambda x, kernel: (conv(x, kernel, (1, 1)) ** 2).sum(), argnums=(0, 1))
  choose = lambda on, *arrays: lax.cond(on, gradients, lambda *arrays: arrays, *arrays)
  program = jax.jit(choose).lower(True, x, kernel).compile().as_text()
  layouts = re.findall(r" convolution\(.*dim_labels=([^,\s]+)", program)
  assert layouts == ["b01f_01io->b01f"] * 3
