"""Times the forms of a dilated convolution: `python -m tests.benchmarks.dilated_conv --help`.

Prints, for each rate, the milliseconds of the direct form (forward, gradient of the input, gradient
of the kernel) and every other form's time as a multiple of it: below 1 is faster than direct.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp

from semiseg_jax.models.dilated import FORMS, dilated_conv
from tests.benchmarks.timing import seconds


def passes(rate: int, form: str) -> dict[str, Callable]:
  """The three passes, jitted; each is (x, kernel, cotangent) -> array."""
  forward = lambda x, kernel: dilated_conv(x, kernel, rate, form)
  return {
    "forward": jax.jit(lambda x, kernel, _: forward(x, kernel)),
    "input grad": jax.jit(lambda x, k, g: jax.vjp(lambda x: forward(x, k), x)[1](g)[0]),
    "kernel grad": jax.jit(lambda x, k, g: jax.vjp(lambda k: forward(x, k), k)[1](g)[0]),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--batch", type=int, default=2)
  parser.add_argument("--size", type=int, default=33, help="height and width")
  parser.add_argument("--channels", type=int, nargs=2, default=(256, 64), metavar=("IN", "OUT"))
  parser.add_argument("--rates", type=int, nargs="+", default=(2, 4, 6, 12, 18))
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
  parser.add_argument("--repeats", type=int, default=5)
  args = parser.parse_args()

  shapes = (
    (args.batch, args.size, args.size, args.channels[0]),
    (3, 3, *args.channels),
    (args.batch, args.size, args.size, args.channels[1]),
  )
  keys = jax.random.split(jax.random.key(0), 3)
  arrays = [
    jax.random.normal(k, s, jnp.dtype(args.dtype)) for k, s in zip(keys, shapes, strict=True)
  ]
  print(f"{jax.devices()[0].device_kind}: x {shapes[0]}, kernel {shapes[1]}, {args.dtype}")
  print(f"{'rate':>4} {'form':>15} {'forward':>13} {'input grad':>13} {'kernel grad':>13}")
  for rate in args.rates:
    direct = {}
    for form in FORMS:
      times = {n: seconds(f, arrays, args.repeats) for n, f in passes(rate, form).items()}
      direct = direct or times
      cells = [
        f"{1e3 * t:10.2f} ms" if form == "direct" else f"{t / direct[n]:10.2f} x "
        for n, t in times.items()
      ]
      print(f"{rate:4d} {form:>15} {' '.join(cells)}", flush=True)


if __name__ == "__main__":
  main()
