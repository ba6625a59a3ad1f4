"""The same picture through the original's layout in PyTorch and through ours."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from semiseg_jax.convert.family import Family
from semiseg_jax.convert.reference import reference_forward
from semiseg_jax.models import networks
from semiseg_jax.models.network import Network, Variables

TOLERANCE = 1e-4  # of the largest value: float32 through a hundred layers
# Even, which tells layouts of the stem apart, and wide enough for the outermost dilation (36 at
# stride 8) to meet more than padding.
_SIZE = (32, 304)


def largest_difference(
  family: Family,
  model: Mapping[str, Any],
  tensors: Mapping[str, np.ndarray],
  network: Network,
  variables: Variables,
) -> dict[str, float]:
  """By output, the largest difference as a share of the output's largest value; in evaluation.

  Raises ImportError without torch.
  """
  images = np.random.default_rng(0).standard_normal((1, *_SIZE, 3), np.float32)
  theirs = reference_forward(family.name, model, tensors, images.transpose(0, 3, 1, 2))
  run = jax.jit(lambda v, x: networks.forward(network.graphdef, *v, x, train=False)[0])
  ours = run(variables, images)._asdict()
  share = lambda a, b: float(np.abs(a - b).max() / np.abs(b).max())
  return {
    name: share(np.asarray(ours[name]).transpose(0, 3, 1, 2), output)
    for name, output in theirs.items()
  }
