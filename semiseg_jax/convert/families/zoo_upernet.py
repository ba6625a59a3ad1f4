"""pytorch-segmentation's UperNet, whose files have its one smoothing layer three times."""

from semiseg_jax.convert.families.zoo_gcn import TRUNK, trunk_of
from semiseg_jax.convert.family import Family


def _describe(shapes, extra) -> dict:
  return {
    "name": "upernet",
    "num_classes": shapes["head.bias"][0],
    **trunk_of(shapes),
    "output_stride": 16,
    "normalization": None,  # that of the dataset, which a file does not say
  }


FAMILY = Family(
  name="zoo_upernet",
  title="pytorch-segmentation's UperNet",
  rules=(
    *TRUNK,
    (r"pyramid\b", "PPN"),
    (r"fpn\.smooth_conv$", "FPN.smooth_conv.0"),
    (r"fpn\b", "FPN"),
    (r"classifier$", "head"),
  ),
  signature=("PPN.bottleneck.0.weight", "FPN.conv_fusion.0.weight", "head.weight"),
  describe=_describe,
  copies=(("FPN.smooth_conv.0", ("FPN.smooth_conv.1", "FPN.smooth_conv.2")),),
)
