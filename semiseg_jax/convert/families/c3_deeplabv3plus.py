"""C3-SemiSeg's DeepLabV3+ on a ResNet; pytorch-segmentation's has the same keys.

A file doesn't say its output stride; 16 is the original's default.
"""

from semiseg_jax.convert.families.c3_deeplabv2 import APART, PROJECTION, common, plus_rules
from semiseg_jax.convert.family import Family, stem_rules, trunk

DECODER = ((r"classifier$", "decoder.output.7"), *plus_rules("", "ASSP", "decoder"), *PROJECTION)


def decoder(shapes, extra) -> dict:
  """The network but for its trunk."""
  return {
    "name": "deeplabv3plus_c3",
    "num_classes": shapes["decoder.output.7.bias"][0],
    "decoder_dim": shapes["ASSP.conv1.weight"][0],
    "output_stride": 16,
    **common(shapes, extra),
  }


def _describe(shapes, extra) -> dict:
  return {**decoder(shapes, extra), **trunk(shapes, "backbone.", "layer0.0")}


FAMILY = Family(
  name="c3_deeplabv3plus",
  title="C3-SemiSeg's DeepLabV3+",
  rules=(*stem_rules("backbone.", "layer0"), *DECODER),
  signature=("backbone.layer0.0.weight", "ASSP.conv1.weight"),
  unless=("DUC_out.conv.weight",),
  describe=_describe,
  apart=APART,
)
