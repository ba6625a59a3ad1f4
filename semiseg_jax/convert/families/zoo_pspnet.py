"""pytorch-segmentation's PSPNet, such as its `checkpoint-epoch80.pth` on Pascal VOC."""

from semiseg_jax.convert.families import zoo
from semiseg_jax.convert.family import Family, stem_rules, trunk

TRUNK = stem_rules("", "initial")
HEADS = (
  (r"pyramid\b", "master_branch.0"),
  (r"classifier\b", "master_branch.1"),
  (r"aux_classifier\.before\b", "auxiliary_branch"),
  (r"aux_classifier\.last\b", "auxiliary_branch.4"),
)


def heads(shapes) -> dict:
  """The network but for its trunk."""
  classes, has_aux = shapes["master_branch.1.bias"][0], "auxiliary_branch.4.bias" in shapes
  return zoo.describe("pspnet", classes, 8, aux_head=has_aux)


def _describe(shapes, extra) -> dict:
  return {**heads(shapes), **trunk(shapes, "", "initial.0")}


FAMILY = Family(
  name="zoo_pspnet",
  title="pytorch-segmentation's PSPNet",
  rules=(*TRUNK, *HEADS),
  signature=("initial.1.weight", "layer1.0.conv1.weight", "master_branch.1.weight"),
  describe=_describe,
)
