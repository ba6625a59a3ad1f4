"""C3-SemiSeg's DeepLabV3+ on an Xception; pytorch-segmentation's has the same keys."""

from semiseg_jax.convert.families.c3_deeplabv2 import APART
from semiseg_jax.convert.families.c3_deeplabv3plus import DECODER, decoder
from semiseg_jax.convert.family import Family, numbers
from semiseg_jax.models.xception import FIRST_MIDDLE_BLOCK


def _describe(shapes, extra) -> dict:
  blocks = numbers(shapes, r"backbone\.block(\d+)\.")
  trunk = {"name": "xception", "width": shapes["backbone.conv1.weight"][0]}
  trunk["middle_blocks"] = len(blocks) - FIRST_MIDDLE_BLOCK
  return {**decoder(shapes, extra), "trunk": trunk}


FAMILY = Family(
  name="c3_xception",
  title="C3-SemiSeg's DeepLabV3+ on an Xception",
  rules=((r"trunk\.", "backbone."), *DECODER),
  signature=("backbone.block1.skip.weight", "ASSP.conv1.weight"),
  describe=_describe,
  apart=APART,
)
