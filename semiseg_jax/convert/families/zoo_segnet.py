"""pytorch-segmentation's SegNet whose decoder has layers of its own, as upstream."""

from semiseg_jax.convert.families import zoo
from semiseg_jax.convert.family import Family


def _describe(shapes, extra) -> dict:
  trunk = {"name": "vgg16_bn", "width": shapes["stage1_encoder.0.bias"][0]}
  return zoo.describe("segnet", shapes["stage5_decoder.6.bias"][0], 32, trunk=trunk)


FAMILY = Family(
  name="zoo_segnet",
  title="pytorch-segmentation's SegNet",
  rules=(
    (r"trunk\.(stage\d)\b", r"\1_encoder"),
    (r"(stage\d_decoder)\b", r"\1"),
    (r"classifier$", "stage5_decoder.6"),
  ),
  signature=("stage1_encoder.1.weight", "stage5_decoder.6.weight"),
  describe=_describe,
)
