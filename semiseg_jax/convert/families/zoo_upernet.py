"""pytorch-segmentation's UperNet, whose files have its one smoothing layer three times."""

from semiseg_jax.convert.families import zoo
from semiseg_jax.convert.family import Family, stem_rules, trunk


def _describe(shapes, extra) -> dict:
  found = trunk(shapes, "backbone.", "initial.0")
  return zoo.describe("upernet", shapes["head.bias"][0], 16, **found)


FAMILY = Family(
  name="zoo_upernet",
  title="pytorch-segmentation's UperNet",
  rules=(
    *stem_rules("backbone.", "initial"),
    (r"pyramid\b", "PPN"),
    (r"fpn\.smooth_conv$", "FPN.smooth_conv.0"),
    (r"fpn\b", "FPN"),
    (r"classifier$", "head"),
  ),
  signature=("PPN.bottleneck.0.weight", "FPN.conv_fusion.0.weight", "head.weight"),
  describe=_describe,
  copies=(("FPN.smooth_conv.0", ("FPN.smooth_conv.1", "FPN.smooth_conv.2")),),
)
