"""DST-CBC's DeepLabV2, such as `voc_coco_resnet101.pt` and what it trains.

A file doesn't say which inputs it was trained with: all published ones come from COCO's weights
(`normalization="coco"`); without `--coco` it is "imagenet".
"""

from semiseg_jax.convert.family import Family, trunk


def _describe(shapes, extra) -> dict:
  return {
    "name": "deeplabv2",
    "num_classes": shapes["classifier.0.convs.0.bias"][0],
    **trunk(shapes, "backbone."),
    "output_stride": 8,
    "classifier_branches": 2,
    "normalization": "coco",
  }


FAMILY = Family(
  name="dst_cbc",
  title="DST-CBC's DeepLabV2",
  rules=(
    (r"trunk\.", "backbone."),
    (r"classifier\.conv2d_list\b", "classifier.0.convs"),
  ),
  signature=("backbone.conv1.weight", "classifier.0.convs.3.weight"),
  describe=_describe,
)
