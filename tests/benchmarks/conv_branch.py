"""Times a convolution's gradients in a `lax.cond`: `python -m tests.benchmarks.conv_branch`.

Prints the milliseconds of both gradients of a 3x3 convolution, derived by JAX and as ours, outside
of a branch and in one.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.models.convolution import conv
from tests.benchmarks.timing import seconds


def derived(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return lax.conv_general_dilated(
    x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return conv(x, kernel, (1, 1))


def gradients(form: Callable) -> Callable:
  return jax.grad(lambda *arrays: (form(*arrays) ** 2).sum(), argnums=(0, 1))


def unchanged(*arrays: jax.Array) -> tuple[jax.Array, ...]:
  return arrays


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--size", type=int, default=48, help="height and width")
  parser.add_argument("--channels", type=int, default=64, help="in and out")
  parser.add_argument("--repeats", type=int, default=5)
  args = parser.parse_args()
  x = jnp.ones((args.batch, args.size, args.size, args.channels))
  kernel = jnp.ones((3, 3, args.channels, args.channels))
  print(f"{jax.devices()[0].device_kind}: x {x.shape}, kernel {kernel.shape}, float32")
  for form in (derived, ours):
    plain = jax.jit(gradients(form))
    branch = jax.jit(lambda on, *arrays, g=plain: lax.cond(on, g, unchanged, *arrays))
    outside = seconds(plain, (x, kernel), args.repeats)
    inside = seconds(branch, (jnp.array(True), x, kernel), args.repeats)
    print(f"{form.__name__:8} {1e3 * outside:9.2f} ms, in a branch {1e3 * inside:9.2f} ms")


if __name__ == "__main__":
  main()
