"""pytorch-segmentation's SegNet whose decoder has layers of its own, as upstream."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from semiseg_jax.convert.families import zoo
from semiseg_jax.convert.family import Family

# (encoder's stage, layer, decoder's stage, layer) of the convolutions that are one in the RankDice
# fork, each with the BatchNorm behind it; and one more such BatchNorm.
_CONVS = (
  (5, 6, 1, 0), (5, 3, 1, 3), (5, 0, 1, 6), (4, 6, 2, 0), (4, 3, 2, 3),
  (3, 6, 3, 0), (3, 3, 3, 3), (2, 3, 4, 0), (1, 3, 5, 0),
)  # fmt: skip
_NORMS = (*((a, i + 1, b, j + 1) for a, i, b, j in _CONVS), (1, 1, 5, 4))
COPIES = tuple(
  (f"stage{a}_encoder.{i}", (f"stage{b}_decoder.{j}",)) for a, i, b, j in (*_CONVS, *_NORMS)
)


def is_tied(tensors: Mapping[str, Any]) -> bool:
  """Whether the decoder has the encoder's tensors everywhere that the fork's has them."""
  equal = lambda a, b: b in tensors and np.array_equal(tensors[a], tensors[b])
  return all(
    equal(key, copy + key.removeprefix(layer))
    for layer, (copy,) in COPIES
    for key in tensors
    if key.startswith(f"{layer}.")
  )


def describe(shapes, extra) -> dict:
  trunk = {"name": "vgg16_bn", "width": shapes["stage1_encoder.0.bias"][0]}
  classes = shapes["stage5_decoder.6.bias"][0]
  return zoo.describe("segnet", classes, 32, trunk=trunk, tied=False)


FAMILY = Family(
  name="zoo_segnet",
  title="pytorch-segmentation's SegNet",
  rules=(
    (r"trunk\.(stage\d)\b", r"\1_encoder"),
    (r"(stage\d_decoder)\b", r"\1"),
    (r"classifier$", "stage5_decoder.6"),
  ),
  signature=("stage1_encoder.1.weight", "stage5_decoder.6.weight"),
  tells=lambda tensors: not is_tied(tensors),
  describe=describe,
)
