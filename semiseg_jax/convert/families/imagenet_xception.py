"""ImageNet's Xception of 8 middle blocks, `xception-b5690688.pth`, for the trunk of 16.

What the larger one has more of starts as a copy: the middle blocks 12 to 19 as block 11, the last
block and the last two convolutions as those of the file; the convolution between, and the
BatchNorms inside separable convolutions, stay fresh (`models/xception.py` of C3-SemiSeg).
"""

import re
from collections.abc import Mapping

import numpy as np

from semiseg_jax.convert.family import Family

# What begins as what, by regular expressions of layers; the others as themselves.
_COPIES = {
  r"block11\b": [f"block{i}" for i in range(11, 20)],
  r"block12\b": ["block20"],
  r"bn3\b": ["bn3", "bn4"],
  r"conv4\b": ["conv5"],
  r"bn4\b": ["bn5"],
}

# The convolution between, the BatchNorms inside, and the third of the blocks that had two.
_LACKS = (
  r"trunk\.conv4\.",
  r"trunk\..*\.bn\.",
  r"trunk\.block(1\.rep\.[67]|(2|3|20)\.rep\.[78])\.",
)


def _adapt(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The tensors by the keys of the larger one; 1x1 convolutions may be matrices in the file."""
  found = {}
  for key, x in tensors.items():
    if key.endswith("pointwise.weight"):
      x = x.reshape(*x.shape[:2], 1, 1)
    copies = ((m[0], names) for old, names in _COPIES.items() if (m := re.match(old, key)))
    layer, names = next(copies, ("", [""]))
    found |= {name + key.removeprefix(layer): x for name in names}
  return found


def _describe(shapes, extra) -> dict:
  return {
    "name": None,
    "num_classes": shapes.get("fc.bias", (1000,))[0],
    "trunk": {"name": "xception", "width": shapes["conv1.weight"][0]},
    "normalization": "imagenet",
  }


FAMILY = Family(
  name="imagenet_xception",
  title="an Xception for ImageNet",
  rules=((r"trunk\.", ""),),
  signature=("block12.skip.weight", "conv4.pointwise.weight", "bn4.weight"),
  describe=_describe,
  lacks=_LACKS,
  adapt=_adapt,
)
