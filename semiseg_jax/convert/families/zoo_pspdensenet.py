"""pytorch-segmentation's PSPNet on a DenseNet, whose deep stem has its last layers twice."""

from semiseg_jax.convert.families.zoo_pspnet import HEADS, heads
from semiseg_jax.convert.family import Family, dense_trunk


def _describe(shapes, extra) -> dict:
  found = dense_trunk(shapes, "block", "block0.0")
  found["trunk"]["deep_stem"] = "block0.3.weight" in shapes
  return {**heads(shapes), **found}


FAMILY = Family(
  name="zoo_pspdensenet",
  title="pytorch-segmentation's PSPNet on a DenseNet",
  rules=(
    (r"trunk\.conv0$", "block0.0"),
    (r"trunk\.norm0$", "block0.1"),
    (r"trunk\.conv1$", "block0.3"),
    (r"trunk\.norm1$", "block0.4"),
    (r"trunk\.(block\d|transition1)\b", r"\1"),
    (r"trunk\.(transition[23])\.norm$", r"\1.0"),
    (r"trunk\.(transition[23])\.conv$", r"\1.2"),
    *HEADS,
  ),
  signature=("block0.0.weight", "block1.denselayer1.conv1.weight", "master_branch.1.weight"),
  describe=_describe,
  copies=(("block0.3", ("block0.6",)), ("block0.4", ("block0.7",))),
)
