"""pytorch-segmentation's PSPNet, such as its `checkpoint-epoch80.pth` on Pascal VOC."""

from semiseg_jax.convert.family import Family, trunk

TRUNK = (
  (r"trunk\.conv1\b", "initial.0"),
  (r"trunk\.bn1\b", "initial.1"),
  (r"trunk\.layer", "layer"),
)
HEADS = (
  (r"pyramid\b", "master_branch.0"),
  (r"classifier\b", "master_branch.1"),
  (r"aux_classifier\.before\b", "auxiliary_branch"),
  (r"aux_classifier\.last\b", "auxiliary_branch.4"),
)


def trunk_of(shapes) -> dict:
  """The ResNet under a network, whose stem is one convolution or three."""
  stem = next(shapes[k] for k in ("initial.0.0.weight", "initial.0.weight") if k in shapes)
  return trunk({**shapes, "conv1.weight": stem}, "")


def heads(shapes) -> dict:
  """The network but for its trunk."""
  return {
    "name": "pspnet",
    "num_classes": shapes["master_branch.1.bias"][0],
    "output_stride": 8,
    "aux_head": "auxiliary_branch.4.bias" in shapes,
    "normalization": None,  # that of the dataset, which a file does not say
  }


def _describe(shapes, extra) -> dict:
  return {**heads(shapes), **trunk_of(shapes)}


FAMILY = Family(
  name="zoo_pspnet",
  title="pytorch-segmentation's PSPNet",
  rules=(*TRUNK, *HEADS),
  signature=("initial.1.weight", "layer1.0.conv1.weight", "master_branch.1.weight"),
  describe=_describe,
)
