"""pytorch-segmentation's SegNet on a ResNet, whose stages are numbered from 0."""

import re

from semiseg_jax.convert.families import zoo
from semiseg_jax.convert.family import Family, trunk


def _describe(shapes, extra) -> dict:
  stage_of = lambda match: f"layer{int(match[1]) + 1}"
  renamed = {re.sub(r"^encoder\.(\d)", stage_of, key): shape for key, shape in shapes.items()}
  found = trunk(renamed, "", "first_conv.0")
  return zoo.describe("segresnet", shapes["last_conv.1.bias"][0], 32, **found)


FAMILY = Family(
  name="zoo_segresnet",
  title="pytorch-segmentation's SegNet on a ResNet",
  rules=(
    (r"trunk\.conv1$", "first_conv.0"),
    (r"trunk\.bn1$", "first_conv.1"),
    *((rf"trunk\.layer{i + 1}\b", f"encoder.{i}") for i in range(4)),
    (r"decoder\b", "decoder"),
    (r"upsample$", "last_conv.0"),
    (r"classifier$", "last_conv.1"),
  ),
  signature=("first_conv.0.weight", "encoder.0.0.conv1.weight", "last_conv.1.weight"),
  describe=_describe,
)
