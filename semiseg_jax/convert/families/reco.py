"""ReCo's DeepLabV3+ and DeepLabV2, such as `cityscapes_label20_semi_classmix_reco.pth`."""

from semiseg_jax.convert.family import Family, trunk


def _describe(shapes, extra) -> dict:
  model = {**trunk(shapes, "resnet_"), "normalization": "imagenet"}
  if "ASPP.project.0.weight" in shapes:
    last, embedding = "classifier.3.bias", "representation.3.bias"
    model |= {"name": "deeplabv3p", "output_stride": 16}
    model["decoder_dim"] = shapes["ASPP.project.0.weight"][0]
  else:
    last, embedding = "classifier.conv2d_list.0.bias", "representation.0.bias"
    model |= {"name": "deeplabv2", "output_stride": 8, "classifier_branches": 4}
  return model | {
    "num_classes": shapes[last][0],
    "heads": {"representation": shapes[embedding][0]} if embedding in shapes else {},
  }


FAMILY = Family(
  name="reco",
  title="ReCo's DeepLab",
  rules=(
    (r"trunk\.", "resnet_"),
    (r"(ASPP|project|classifier|representation)\b", r"\1"),
  ),
  signature=("resnet_conv1.weight",),
  describe=_describe,
)
