"""ImageNet's VGG16 as torchvision names it, such as `vgg16-397923af.pth`.

Its first two linear layers are convolutions here, of 7x7 and 1x1, as FCN-8s takes them over.
"""

from collections.abc import Mapping

import numpy as np

from semiseg_jax.convert.family import Family
from semiseg_jax.models.vgg import DEPTHS

_GRID, _DENSE = 7, ("classifier.0.weight", "classifier.3.weight")


def _adapt(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """With convolutions for linear layers."""
  found = dict(tensors)
  for key, grid in zip(_DENSE, (_GRID, 1), strict=True):
    if key in found and found[key].ndim == 2:
      found[key] = found[key].reshape(len(found[key]), -1, grid, grid)
  return found


def _restore(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """With linear layers for convolutions."""
  flat = {key: x.reshape(len(x), -1) for key, x in tensors.items() if key in _DENSE}
  return {**tensors, **flat}


def family(name: str, per_conv: int) -> Family:
  """per_conv: layers of each convolution's kind: itself, its BatchNorm if it has one, ReLU."""

  def describe(shapes, extra) -> dict:
    return {
      "name": "vgg", "num_classes": shapes["classifier.6.bias"][0], "output_stride": 32,
      "trunk": {"name": name, "width": shapes["features.0.bias"][0]},
      "decoder_dim": shapes["classifier.0.bias"][0], "normalization": "imagenet",
    }  # fmt: skip

  rules, start = [], 0
  for stage, depth in enumerate(DEPTHS, start=1):
    for i in range(depth * per_conv):
      rules.append((rf"trunk\.stage{stage}\.{i}$", f"features.{start + i}"))
    start += depth * per_conv + 1  # the pool
  rules += [("conv6$", "classifier.0"), ("conv7$", "classifier.3"), ("classifier$", "classifier.6")]
  has_norms = per_conv == 3
  first_norm = ("features.1.weight",)
  return Family(
    name=f"torchvision_{name}",
    title=f"torchvision's {name} for ImageNet",
    rules=tuple(rules),
    signature=("features.0.weight", "classifier.6.weight", *(first_norm if has_norms else ())),
    unless=() if has_norms else first_norm,
    describe=describe,
    adapt=_adapt,
    restore=_restore,
  )


FAMILY = family("vgg16", 2)
