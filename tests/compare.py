"""When two trees of arrays count as the same."""

import jax
import numpy as np

TOLERANCE = 1e-5  # float32 sums in another order


def assert_same(left, right, tolerance: float = TOLERANCE):
  """Equal but for rounding, measured by each array's largest value or by 1."""
  scale = lambda x: tolerance * max(1.0, float(np.abs(x).max(initial=0)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=scale(b)), left, right)


def assert_same_bits(left, right, message: str = ""):
  same = jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), left, right)
  assert all(jax.tree.leaves(same)), message
