"""pytorch-segmentation's SegNet whose decoder has layers of its own, as upstream."""

from semiseg_jax.convert.family import Family


def _describe(shapes, extra) -> dict:
  width = shapes["stage1_encoder.0.bias"][0]
  return {
    "name": "segnet",
    "num_classes": shapes["stage5_decoder.6.bias"][0],
    "trunk": {"name": "vgg16_bn", "width": width},
    "output_stride": 32,
    "normalization": None,  # that of the dataset, which a file does not say
  }


FAMILY = Family(
  name="zoo_segnet",
  title="pytorch-segmentation's SegNet",
  rules=(
    (r"trunk\.(stage\d)\b", r"\1_encoder"),
    (r"(stage\d_decoder)\b", r"\1"),
    (r"classifier$", "stage5_decoder.6"),
  ),
  signature=("stage1_encoder.1.weight", "stage5_decoder.6.weight"),
  describe=_describe,
)
