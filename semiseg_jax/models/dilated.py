"""Convolution with a dilated kernel in several forms, all exact: they differ in speed alone."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax

from semiseg_jax.backend import platform
from semiseg_jax.collectives import DATA_AXIS, alike
from semiseg_jax.models.convolution import conv


class Passes(NamedTuple):
  """The form of each pass of a convolution: keys of FORMS."""

  forward: str = "direct"
  input_grad: str = "direct"
  kernel_grad: str = "direct"


DIRECT = Passes()
BATCHED = Passes("space_to_batch", "space_to_batch", "space_to_batch")

# What `python -m tests.benchmarks.dilated_conv` found to be fastest: docs/performance.md. CPU: the
# products win each pass once so small a share of their taps' pixels lies inside the image. GPU:
# from a rate on, of an H200's direct and batched forms on 20x21x21x2048 -> 256 in bfloat16; the
# products have not been tried there. TPU: not measured, the compiler skips taps on padding itself.
_INSIDE_ON_CPU = (0.7, 0.7, 0.5)
_RATES_ON_GPU = (
  (1, Passes(kernel_grad="space_to_batch")),
  (12, BATCHED),
  (18, BATCHED._replace(input_grad="direct")),
)


def dilated_conv(x: jax.Array, kernel: jax.Array, rate: int, form: str | None = None) -> jax.Array:
  """Convolution with holes that keeps the size: x [B,H,W,I], kernel [k,k,I,O], k odd -> [B,H,W,O].

  form: of all passes, "direct" (the compiler's own dilation) | "space_to_batch" (each of the
  rate x rate sub-images through a dense convolution) | "products" (of each tap with the image
  shifted by it, which skips what meets padding) | None (of each pass the platform's fastest; direct
  if a size of x is a symbol, as the program is then exported and may run on any).
  Raises ValueError for another form.
  """
  if form is not None and form not in FORMS:
    raise ValueError(f"dilated_conv form={form!r}: choose from {', '.join(FORMS)}")
  kernel = drop_padding_taps(kernel, rate, x.shape[1:3])
  if kernel.shape[:2] == (1, 1):
    return conv(x, kernel)
  passes = Passes(form, form, form) if form else fastest(rate, kernel.shape, x.shape)
  if len(set(passes)) == 1:
    return FORMS[passes.forward](x, kernel, rate)
  return _mixed(*alike(x, kernel, axis_name=DATA_AXIS), rate, passes)


def fastest(rate: int, kernel: tuple[int, ...], image: tuple[int, ...]) -> Passes:
  """The forms for a kernel [k,k,I,O] and images [B,H,W,C] on the platform at hand."""
  if any(map(export.is_symbolic_dim, image)):
    return DIRECT
  if platform() == "gpu":
    return [forms for least, forms in _RATES_ON_GPU if least <= rate][-1]
  if platform() == "cpu":
    inside = math.prod(map(functools.partial(share_inside, rate), kernel[:2], image[1:3]))
    return Passes(*("products" if inside <= most else "direct" for most in _INSIDE_ON_CPU))
  return DIRECT


def share_inside(rate: int, taps: int, size: int) -> float:
  """Of the pixels that the taps of a row meet along a side of that size, those that are there."""
  return sum(max(size - rate * abs(i - taps // 2), 0) for i in range(taps)) / (taps * size)


def drop_padding_taps(kernel: jax.Array, rate: int, size: tuple[int, int]) -> jax.Array:
  """The kernel without the taps that meet only padding: those at least as far out as the image.

  Along a side that is a symbol all are kept.
  """
  rows, columns = (
    slice(k // 2 - reach, k // 2 + reach + 1)
    for k, n in zip(kernel.shape[:2], size, strict=True)
    for reach in [k // 2 if export.is_symbolic_dim(n) else min(k // 2, (n - 1) // rate)]
  )
  return kernel[rows, columns]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _mixed(x: jax.Array, kernel: jax.Array, rate: int, passes: Passes) -> jax.Array:
  """The convolution with a form of its own for each pass."""
  return FORMS[passes.forward](x, kernel, rate)


def _forward(x, kernel, rate, passes):
  return _mixed(x, kernel, rate, passes), (x, kernel)


def _backward(rate, passes, arrays, slope):
  x, kernel = arrays
  of_input = lambda x: FORMS[passes.input_grad](x, kernel, rate)
  of_kernel = lambda kernel: FORMS[passes.kernel_grad](x, kernel, rate)
  return *jax.vjp(of_input, x)[1](slope), *jax.vjp(of_kernel, kernel)[1](slope)


_mixed.defvjp(_forward, _backward)


def _direct(x: jax.Array, kernel: jax.Array, rate: int) -> jax.Array:
  return conv(x, kernel, tuple(rate * (k // 2) for k in kernel.shape[:2]), dilation=rate)


def _space_to_batch(x: jax.Array, kernel: jax.Array, rate: int) -> jax.Array:
  batch, height, width, channels = x.shape
  rows, columns = -(-height // rate), -(-width // rate)  # of a sub-image
  x = lax.pad(
    x,
    np.zeros((), x.dtype),
    [(0, 0, 0), (0, rows * rate - height, 0), (0, columns * rate - width, 0), (0, 0, 0)],
  )
  x = x.reshape(batch, rows, rate, columns, rate, channels).transpose(2, 4, 0, 1, 3, 5)
  x = x.reshape(rate * rate * batch, rows, columns, channels)
  y = conv(x, kernel, tuple(k // 2 for k in kernel.shape[:2]))
  y = y.reshape(rate, rate, batch, rows, columns, -1).transpose(2, 3, 0, 4, 1, 5)
  return y.reshape(batch, rows * rate, columns * rate, -1)[:, :height, :width]


def _products(x: jax.Array, kernel: jax.Array, rate: int) -> jax.Array:
  if kernel.shape[2] != x.shape[-1]:  # groups of channels make no large products
    return _direct(x, kernel, rate)
  size, taps = x.shape[1:3], kernel.shape[:2]
  y = 0
  for tap in np.ndindex(taps):
    shifts = [rate * (i - k // 2) for i, k in zip(tap, taps, strict=True)]
    seen = [slice(max(s, 0), n + min(s, 0)) for s, n in zip(shifts, size, strict=True)]
    part = x[:, *seen]
    product = jnp.matmul(
      part.reshape(-1, x.shape[-1]), kernel[tap], preferred_element_type=jnp.float32
    )
    around = [(max(-s, 0), max(s, 0)) for s in shifts]
    y += jnp.pad(product.reshape(*part.shape[:3], -1), [(0, 0), *around, (0, 0)])
  return y.astype(x.dtype)


FORMS = {"direct": _direct, "space_to_batch": _space_to_batch, "products": _products}
