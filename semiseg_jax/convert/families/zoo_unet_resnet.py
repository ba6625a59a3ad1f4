"""pytorch-segmentation's U-Net on a ResNet."""

from semiseg_jax.convert.families import zoo
from semiseg_jax.convert.families.zoo_pspnet import TRUNK
from semiseg_jax.convert.family import Family, trunk


def _describe(shapes, extra) -> dict:
  stem = trunk(shapes, "", "initial.0")
  return zoo.describe("unet_resnet", shapes["conv7.weight"][0], 8, **stem)


FAMILY = Family(
  name="zoo_unet_resnet",
  title="pytorch-segmentation's U-Net on a ResNet",
  rules=(*TRUNK, (r"(conv[1-6]|upconv\d)$", r"\1"), (r"classifier$", "conv7")),
  signature=("initial.1.weight", "layer1.0.conv1.weight", "upconv1.weight", "conv7.weight"),
  describe=_describe,
)
