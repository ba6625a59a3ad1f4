"""torchvision's DeepLabV3, such as `deeplabv3_resnet101_coco-586e9e4e.pth` (COCO, VOC's labels)."""

from semiseg_jax.convert.family import Family, trunk


def _describe(shapes, extra) -> dict:
  return {
    "name": "deeplabv3",
    "num_classes": shapes["classifier.4.bias"][0],
    **trunk(shapes, "backbone."),
    "decoder_dim": shapes["classifier.1.weight"][0],
    "output_stride": 8,
    "aux_head": "aux_classifier.0.weight" in shapes,
    "normalization": "imagenet",
  }


FAMILY = Family(
  name="torchvision_deeplabv3",
  title="torchvision's DeepLabV3",
  rules=(
    (r"trunk\.", "backbone."),
    (r"ASPP\.", "classifier.0."),
    (r"classifier\.0\b", "classifier.1"),
    (r"classifier\.1\b", "classifier.2"),
    (r"classifier\.3\b", "classifier.4"),
    (r"aux_classifier\.([01])\b", r"aux_classifier.\1"),  # a dropout is its 3
    (r"aux_classifier\.3\b", "aux_classifier.4"),
  ),
  signature=("backbone.conv1.weight", "classifier.0.project.0.weight", "classifier.4.weight"),
  describe=_describe,
)
