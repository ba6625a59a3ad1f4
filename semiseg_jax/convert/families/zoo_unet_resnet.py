"""pytorch-segmentation's U-Net on a ResNet."""

from semiseg_jax.convert.families.zoo_pspnet import TRUNK, trunk_of
from semiseg_jax.convert.family import Family


def _describe(shapes, extra) -> dict:
  return {
    "name": "unet_resnet",
    "num_classes": shapes["conv7.weight"][0],
    **trunk_of(shapes),
    "output_stride": 8,
    "normalization": None,  # that of the dataset, which a file does not say
  }


FAMILY = Family(
  name="zoo_unet_resnet",
  title="pytorch-segmentation's U-Net on a ResNet",
  rules=(*TRUNK, (r"(conv[1-6]|upconv\d)$", r"\1"), (r"classifier$", "conv7")),
  signature=("initial.1.weight", "layer1.0.conv1.weight", "upconv1.weight", "conv7.weight"),
  describe=_describe,
)
