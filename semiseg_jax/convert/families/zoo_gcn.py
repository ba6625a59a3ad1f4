"""pytorch-segmentation's GCN."""

from semiseg_jax.convert.family import Family, trunk

TRUNK = (
  (r"trunk\.conv1$", "backbone.initial.0"),
  (r"trunk\.bn1$", "backbone.initial.1"),
  (r"trunk\.layer", "backbone.layer"),
)


def trunk_of(shapes) -> dict:
  """The ResNet under a network."""
  return trunk(
    {**shapes, "backbone.conv1.weight": shapes["backbone.initial.0.weight"]}, "backbone."
  )


def _describe(shapes, extra) -> dict:
  return {
    "name": "gcn",
    "num_classes": shapes["final_conv.bias"][0],
    **trunk_of(shapes),
    "output_stride": 32,
    "num_filters": shapes["gcn1.conv11.weight"][2],
    "use_deconv": "decon1.weight" in shapes,
    "normalization": None,  # that of the dataset, which a file does not say
  }


FAMILY = Family(
  name="zoo_gcn",
  title="pytorch-segmentation's GCN",
  rules=(*TRUNK, (r"((?:gcn|br)\d\.\w+|decon\d)$", r"\1"), (r"classifier$", "final_conv")),
  signature=("backbone.initial.0.weight", "gcn1.conv11.weight", "final_conv.bias"),
  describe=_describe,
)
