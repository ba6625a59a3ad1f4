"""DINOv2's encoders, such as `dinov2_vits14_pretrain.pth` and `dinov2_vitb14_reg4_pretrain.pth`."""

import math
import re

from semiseg_jax.convert.family import Family, Shapes, numbers
from semiseg_jax.models.vit import HEAD_WIDTH, SIZES


def encoder(shapes: Shapes, prefix: str = "") -> dict[str, dict]:
  """{"trunk": its description}; ValueError for one whose heads can't be of 64 channels."""
  _, places, channels = shapes[f"{prefix}pos_embed"]
  depth = len(numbers(shapes, rf"{re.escape(prefix)}blocks\.(\d+)\."))
  heads, rest = divmod(channels, HEAD_WIDTH)
  if rest:
    raise ValueError(
      f"an encoder of {channels} channels, not of heads of {HEAD_WIDTH}: the file doesn't say how "
      "many there are"
    )
  is_gated = f"{prefix}blocks.0.mlp.w12.weight" in shapes
  base = "giant" if is_gated else "small"
  kinds = {(size.depth, size.heads, size.swiglu): name for name, size in SIZES.items()}
  name = f"dinov2_{kinds.get((depth, heads, is_gated), base)}"
  name = name.replace("dinov2_tiny", "vit_tiny")
  if f"{prefix}register_tokens" in shapes:
    name += "_reg"
  trunk = {"name": name, "depth": depth, "heads": heads, "grid": math.isqrt(places - 1)}
  return {"trunk": trunk}


def _describe(shapes, extra) -> dict:
  return {"name": None, "num_classes": None, **encoder(shapes), "normalization": "imagenet"}


FAMILY = Family(
  name="dinov2",
  title="DINOv2's encoder",
  rules=((r"trunk$", ""), (r"trunk\.(patch_embed|blocks|norm)\b", r"\1")),
  signature=("cls_token", "pos_embed", "blocks.0.ls1.gamma"),
  describe=_describe,
  of_trunk=True,
  lacks=(r"trunk\.mask_token$",),
)
