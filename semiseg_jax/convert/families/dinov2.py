"""DINOv2's encoders, such as `dinov2_vits14_pretrain.pth` and `dinov2_vitb14_reg4_pretrain.pth`."""

from semiseg_jax.convert.family import Family, Shapes, numbers
from semiseg_jax.models.vit import HEAD_WIDTH, SIZES, ViTTrunk


def encoder(shapes: Shapes, prefix: str = "") -> dict[str, dict]:
  """{"trunk": its description}; ValueError for an encoder that is none of DINOv2's."""
  _, places, channels = shapes[f"{prefix}pos_embed"]
  depth = len(numbers(shapes, rf"{prefix}blocks\.(\d+)\."))
  gated = f"{prefix}blocks.0.mlp.w12.weight" in shapes
  for name, size in SIZES.items():
    if (depth, channels, gated) == (size.depth, HEAD_WIDTH * size.heads, size.swiglu):
      kind = "_reg" if f"{prefix}register_tokens" in shapes else ""
      trunk = f"vit_{name}" if name == "tiny" else f"dinov2_{name}{kind}"
      return {"trunk": {"name": ViTTrunk(trunk).name, "grid": int((places - 1) ** 0.5)}}
  raise ValueError(
    f"an encoder with {depth} blocks of {channels} channels is none of {', '.join(SIZES)}"
  )


def _describe(shapes, extra) -> dict:
  return {"name": None, "num_classes": None, **encoder(shapes), "normalization": "imagenet"}


FAMILY = Family(
  name="dinov2",
  title="DINOv2's encoder",
  rules=((r"trunk\.?", ""),),
  signature=("cls_token", "pos_embed", "patch_embed.proj.weight"),
  describe=_describe,
  counters=False,
)
