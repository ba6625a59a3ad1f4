"""Convolution with a dilated kernel in several forms, all exact: they differ in speed alone."""

import jax
import numpy as np
from jax import export, lax

from semiseg_jax.backend import platform
from semiseg_jax.models.convolution import conv

# The fastest form on each platform (`python -m tests.benchmarks.dilated_conv` measures yours).
# TPU: the compiler skips the taps on padding by itself. GPU: XLA is reported to turn a dilated
# kernel into a dense one full of zeros, for the kernel's gradient above all; not measured by us.
# CPU: direct won 13 of 15 measurements at 33x33x256 -> 64, mostly by 1.3 to 1.8 times.
DEFAULT_FORMS = {"tpu": "direct", "gpu": "space_to_batch", "cpu": "direct"}


def dilated_conv(x: jax.Array, kernel: jax.Array, rate: int, form: str | None = None) -> jax.Array:
  """Convolution with holes that keeps the size: x [B,H,W,I], kernel [k,k,I,O], k odd -> [B,H,W,O].

  form: "direct" (the compiler's own dilation) | "space_to_batch" (each of the rate x rate
  sub-images through a dense convolution) | None (the best of the default backend; direct if a
  size of x is a symbol, as the program is then exported and may run on any).
  Raises ValueError for another form.
  """
  form = _default_form(x.shape) if form is None else form
  if form not in FORMS:
    raise ValueError(f"dilated_conv form={form!r}: choose from {', '.join(FORMS)}")
  kernel = drop_padding_taps(kernel, rate, x.shape[1:3])
  if kernel.shape[:2] == (1, 1):
    return conv(x, kernel)
  return FORMS[form](x, kernel, rate)


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


FORMS = {"direct": _direct, "space_to_batch": _space_to_batch}


def _default_form(shape: tuple[int, ...]) -> str:
  if any(map(export.is_symbolic_dim, shape)):
    return "direct"
  return DEFAULT_FORMS.get(platform(), DEFAULT_FORMS["gpu"])
