"""pytorch-segmentation's DeepLab with dense upsampling and hybrid dilation."""

from semiseg_jax.convert.families import zoo
from semiseg_jax.convert.families.c3_deeplabv2 import plus_rules
from semiseg_jax.convert.family import Family, stem_rules, trunk


def _describe(shapes, extra) -> dict:
  return zoo.describe(
    "duc_hdc",
    shapes["decoder.output.7.bias"][0],
    8,
    **trunk(shapes, "backbone.", "layer0.0"),
    decoder_dim=shapes["ASSP.conv1.weight"][0],
  )


FAMILY = Family(
  name="zoo_duc_hdc",
  title="pytorch-segmentation's DeepLab with DUC and HDC",
  rules=(
    *stem_rules("backbone.", "layer0"),
    *plus_rules("", "ASSP", "decoder", convs=6),
    (r"upsampling\b", "decoder.DUC"),
    (r"classifier$", "decoder.output.7"),
    (r"classifier_upsampling\b", "DUC_out"),
  ),
  signature=("backbone.layer0.0.weight", "ASSP.aspp6.0.weight", "DUC_out.conv.weight"),
  describe=_describe,
)
