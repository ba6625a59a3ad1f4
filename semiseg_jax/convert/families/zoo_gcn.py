"""pytorch-segmentation's GCN."""

from semiseg_jax.convert.families import zoo
from semiseg_jax.convert.family import Family, stem_rules, trunk


def _describe(shapes, extra) -> dict:
  return zoo.describe(
    "gcn",
    shapes["final_conv.bias"][0],
    32,
    **trunk(shapes, "backbone.", "initial.0"),
    num_filters=shapes["gcn1.conv11.weight"][2],
    use_deconv="decon1.weight" in shapes,
  )


FAMILY = Family(
  name="zoo_gcn",
  title="pytorch-segmentation's GCN",
  rules=(
    *stem_rules("backbone.", "initial"),
    (r"((?:gcn|br)\d\.\w+|decon\d)$", r"\1"),
    (r"classifier$", "final_conv"),
  ),
  signature=("backbone.initial.0.weight", "gcn1.conv11.weight", "final_conv.bias"),
  describe=_describe,
)
