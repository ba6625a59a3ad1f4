"""The convolution of every layer, with gradients that the CPU's compiler is quick with anywhere."""

import functools

import jax
from jax import lax

from semiseg_jax.backend import platform
from semiseg_jax.collectives import DATA_AXIS, as_varying, varies

Pair = tuple[int, int]  # vertical, horizontal


def conv(
  x: jax.Array, kernel: jax.Array, padding: Pair = (0, 0), stride: int = 1, dilation: int = 1
) -> jax.Array:
  """x [B,H,W,I], kernel [h,w,I,O] -> [B,H',W',O]; padding is the same on both sides.

  A kernel of fewer input channels than x's works on groups of them.
  """
  if platform() != "cpu" or kernel.shape[2] != x.shape[-1]:
    return _conv(x, kernel, [(p, p) for p in padding], stride, dilation)
  return _conv_on_cpu(*alike(x, kernel), padding, stride, dilation)


def alike(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Both typed as a device's own if one is: a written gradient has to have the type of what it is
  of, on all devices equal or not."""
  if varies(x, DATA_AXIS) or varies(kernel, DATA_AXIS):
    return as_varying((x, kernel), DATA_AXIS)
  return x, kernel


def conv_transpose(x: jax.Array, kernel: jax.Array, pads: Pair, stride: int) -> jax.Array:
  """The transpose of a convolution: x [B,H,W,I], kernel [h,w,O,I] -> [B,H',W',O].

  pads: around x once there are stride - 1 zeros between its pixels, before and after.
  """
  return _conv(x, kernel[::-1, ::-1].swapaxes(2, 3), [pads] * 2, 1, 1, holes=stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv_on_cpu(
  x: jax.Array, kernel: jax.Array, padding: Pair, stride: int, dilation: int
) -> jax.Array:
  """A convolution whose gradients are convolutions of images NHWC and kernels HWIO as well.

  The derived ones read the same arrays as NHWC and HWOI, or CHWN, for which the CPU's compiler has
  fast code only after it has transposed them, and that it does outside of branches and loops alone;
  `python -m tests.benchmarks.conv_branch` shows by how much.
  """
  return _conv(x, kernel, [(p, p) for p in padding], stride, dilation)


def _forward(x, kernel, padding, stride, dilation):
  return _conv(x, kernel, [(p, p) for p in padding], stride, dilation), (x, kernel)


def _backward(padding, stride, dilation, arrays, slope):
  x, kernel = arrays
  x_pads, kernel_pads = [], []  # of the two convolutions, vertical and horizontal
  for size, out, taps, pad in zip(
    x.shape[1:3], slope.shape[1:3], kernel.shape[:2], padding, strict=True
  ):
    reach, spread = dilation * (taps - 1), stride * (out - 1)  # of the holes in kernel and slope
    x_pads.append((reach - pad, size - 1 + pad - spread))
    kernel_pads.append((pad, reach + spread + 1 - size - pad))
  turned = kernel[::-1, ::-1].swapaxes(2, 3)
  x_slope = _conv(slope, turned, x_pads, 1, dilation, holes=stride)
  kernel_slope = _conv(
    x.transpose(3, 1, 2, 0), slope.transpose(1, 2, 0, 3), kernel_pads, dilation, stride
  )
  return x_slope, kernel_slope.transpose(1, 2, 0, 3)


_conv_on_cpu.defvjp(_forward, _backward)


def _conv(
  x: jax.Array, kernel: jax.Array, pads: list[Pair], stride: int, dilation: int, holes: int = 1
) -> jax.Array:
  """The compiler's convolution. pads: (before, after) of each side, cut off where below 0; holes:
  the distance of x's pixels."""
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=pads,
    lhs_dilation=(holes, holes),
    rhs_dilation=(dilation, dilation),
    feature_group_count=x.shape[-1] // kernel.shape[2],
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
