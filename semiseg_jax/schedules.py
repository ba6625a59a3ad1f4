"""Numbers that follow the step: pure functions, inside or outside jit."""

import jax
import jax.numpy as jnp


def cosine_decay(step: jax.Array, steps: int, warmup_rate: float) -> jax.Array:
  """A teacher's momentum at each step of a run of `steps`, counted from 0 (Alonso et al. 2021).

  From 0.995 to 1 along a cosine; in the warm-up 1 - 1 / (warmup_rate step + 1), so 0 at the first
  update, which copies the student.
  """
  cosine = 1 - 0.005 * (jnp.cos(jnp.pi * step / steps) + 1) / 2
  return jnp.minimum(1 - 1 / (warmup_rate * step + 1), cosine)
