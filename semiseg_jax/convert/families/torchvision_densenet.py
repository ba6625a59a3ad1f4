"""ImageNet DenseNets as torchvision names them, such as `densenet121-a639ec97.pth`."""

import re
from collections.abc import Mapping

import numpy as np

from semiseg_jax.convert.family import Family, dense_trunk


def _adapt(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The published files have a dot in their layers' names, norm.1 for norm1, that is gone since."""
  renamed = lambda key: re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key)
  return {renamed(key): x for key, x in tensors.items()}


def _describe(shapes, extra) -> dict:
  return {
    "name": "densenet", "num_classes": shapes["classifier.bias"][0], "output_stride": 32,
    **dense_trunk(shapes, "features.denseblock", "features.conv0"), "normalization": "imagenet",
  }  # fmt: skip


FAMILY = Family(
  name="torchvision_densenet",
  title="torchvision's DenseNet for ImageNet",
  rules=(
    (r"trunk\.block", "features.denseblock"),
    (r"trunk\.", "features."),
    (r"norm5$", "features.norm5"),
    (r"classifier$", "classifier"),
  ),
  signature=("features.conv0.weight", "features.norm5.weight"),
  describe=_describe,
  adapt=_adapt,
)
