"""pytorch-segmentation's FCN-8s, whose first Sequential holds three stages with their pools."""

from semiseg_jax.convert.families import zoo
from semiseg_jax.convert.family import Family

_PLACES = {(1, 0): 0, (1, 2): 2, (2, 0): 5, (2, 2): 7, (3, 0): 10, (3, 2): 12, (3, 4): 14}


def _describe(shapes, extra) -> dict:
  trunk = {"name": "vgg16", "width": shapes["pool3.0.bias"][0]}
  dim = shapes["output.0.bias"][0]
  return zoo.describe("fcn8", shapes["output.6.bias"][0], 32, trunk=trunk, decoder_dim=dim)


FAMILY = Family(
  name="zoo_fcn8",
  title="pytorch-segmentation's FCN-8s",
  rules=(
    *((rf"trunk\.stage{stage}\.{i}$", f"pool3.{n}") for (stage, i), n in _PLACES.items()),
    (r"trunk\.stage([45])\b", r"pool\1"),
    (r"conv6$", "output.0"),
    (r"conv7$", "output.3"),
    (r"classifier$", "output.6"),
    (r"(adj_pool[34]|up_\w+)$", r"\1"),
  ),
  signature=("pool3.0.weight", "adj_pool3.weight", "output.6.weight"),
  describe=_describe,
)
