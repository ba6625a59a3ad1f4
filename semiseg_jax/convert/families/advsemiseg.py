"""AdvSemiSeg's DeepLabV2 of COCO, `resnet101COCO-41f33a49.pth`.

Its own layout is the memory bank's ("deeplabv2_coco"); DST-CBC runs the same weights in
torchvision's ("deeplabv2"). Both add up two of the four branches.
"""

from semiseg_jax.convert.family import Family, trunk


def _describe(shapes, extra) -> dict:
  return {
    "name": "deeplabv2_coco",
    "num_classes": shapes["layer5.conv2d_list.0.bias"][0],
    **trunk(shapes, ""),
    "output_stride": 8,
    "classifier_branches": 2,
    "normalization": "coco",
  }


FAMILY = Family(
  name="advsemiseg",
  title="AdvSemiSeg's DeepLabV2",
  rules=((r"trunk\.", ""), (r"classifier\.conv2d_list\b", "layer5.conv2d_list")),
  signature=("conv1.weight", "layer5.conv2d_list.0.weight"),
  unless=("projection_head.0.weight",),
  describe=_describe,
  counters=False,
)
