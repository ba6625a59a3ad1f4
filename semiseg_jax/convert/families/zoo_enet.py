"""pytorch-segmentation's ENet."""

from semiseg_jax.convert.families import zoo
from semiseg_jax.convert.family import Family


def _describe(shapes, extra) -> dict:
  trunk = {"name": "enet", "width": shapes["initial.bn.weight"][0]}
  return zoo.describe("enet", shapes["fullconv.weight"][1], 8, trunk=trunk)


FAMILY = Family(
  name="zoo_enet",
  title="pytorch-segmentation's ENet",
  rules=(
    (r"trunk\.(initial|bottleneck\d+)\b", r"\1"),
    (r"(bottleneck\d+)\.spatial_conv$", r"\1.spatil_conv"),
    (r"(bottleneck\d+)\b", r"\1"),
    (r"classifier$", "fullconv"),
  ),
  signature=("initial.prelu.weight", "fullconv.weight"),
  describe=_describe,
)
