"""pytorch-segmentation's DeepLab with dense upsampling and hybrid dilation."""

from semiseg_jax.convert.families.c3_deeplabv3plus import TRUNK, trunk_of
from semiseg_jax.convert.family import Family

ASPP = tuple((rf"ASPP\.convs\.{i}\b", f"ASSP.aspp{i + 1}") for i in range(6))


def _describe(shapes, extra) -> dict:
  return {
    "name": "duc_hdc",
    "num_classes": shapes["decoder.output.7.bias"][0],
    **trunk_of(shapes),
    "output_stride": 8,
    "decoder_dim": shapes["ASSP.conv1.weight"][0],
    "normalization": None,  # that of the dataset, which a file does not say
  }


FAMILY = Family(
  name="zoo_duc_hdc",
  title="pytorch-segmentation's DeepLab with DUC and HDC",
  rules=(
    *TRUNK,
    *ASPP,
    (r"ASPP\.convs\.6\b", "ASSP.avg_pool"),
    (r"ASPP\.project\.0$", "ASSP.conv1"),
    (r"ASPP\.project\.1$", "ASSP.bn1"),
    (r"project\.0$", "decoder.conv1"),
    (r"project\.1$", "decoder.bn1"),
    (r"upsampling\b", "decoder.DUC"),
    (r"decoder\b", "decoder.output"),
    (r"classifier$", "decoder.output.7"),
    (r"classifier_upsampling\b", "DUC_out"),
  ),
  signature=("backbone.layer0.0.weight", "ASSP.aspp6.0.weight", "DUC_out.conv.weight"),
  describe=_describe,
)
