"""ImageNet ResNets as torchvision names them, such as `resnet101-5d3b4d8f.pth`.

PyTorch-Encoding's have three convolutions in the stem, such as `resnet50s-a75c83cf.pth`.
"""

from semiseg_jax.convert.family import Family, trunk


def _describe(shapes, extra) -> dict:
  classes = shapes.get("fc.bias", (1000,))[0]
  return {
    "name": "resnet", "num_classes": classes, **trunk(shapes, ""), "output_stride": 32,
    "normalization": "imagenet",
  }  # fmt: skip


FAMILY = Family(
  name="torchvision_resnet",
  title="torchvision's ResNet for ImageNet",
  rules=((r"trunk\.", ""), (r"classifier$", "fc")),
  signature=("bn1.weight", "layer1.0.conv1.weight"),
  unless=("layer5.conv2d_list.0.weight", "aspp.aspp1.atrous_conv.weight"),
  describe=_describe,
)
