"""pytorch-segmentation's U-Net."""

from semiseg_jax.convert.families import zoo
from semiseg_jax.convert.family import Family


def _describe(shapes, extra) -> dict:
  trunk = {"name": "unet", "width": shapes["start_conv.3.weight"][0]}
  return zoo.describe("unet", shapes["final_conv.bias"][0], 16, trunk=trunk)


FAMILY = Family(
  name="zoo_unet",
  title="pytorch-segmentation's U-Net",
  rules=(
    (r"trunk\.start_conv\b", "start_conv"),
    (r"trunk\.(down\d)\b", r"\1.down_conv"),
    (r"(middle_conv|up\d)\b", r"\1"),
    (r"classifier$", "final_conv"),
  ),
  signature=("start_conv.0.weight", "middle_conv.0.weight", "final_conv.bias"),
  describe=_describe,
)
