"""UniMatch V2's DPT on DINOv2: `model` and `model_ema` of its `best.pth` and `latest.pth`."""

from semiseg_jax.convert.families.dinov2 import FAMILY as ENCODER
from semiseg_jax.convert.families.dinov2 import encoder
from semiseg_jax.convert.family import Family


def _describe(shapes, extra) -> dict:
  of_head = lambda name: shapes[f"head.{name}.weight"][0]
  return {
    "name": "dpt",
    "num_classes": of_head("scratch.output_conv.2"),
    **encoder(shapes, "backbone."),
    "decoder_dim": of_head("scratch.layer1_rn"),
    "project_dims": tuple(of_head(f"projects.{i}") for i in range(4)),
    "normalization": "imagenet",
  }


FAMILY = Family(
  name="unimatch_v2",
  title="UniMatch V2's DPT",
  rules=(
    (r"trunk\b", "backbone"),
    (r"projects\b", "head.projects"),
    (r"enlarge4$", "head.resize_layers.0"),
    (r"enlarge2$", "head.resize_layers.1"),
    (r"shrink$", "head.resize_layers.3"),
    (r"(layer\d_rn|refinenet\d)\b", r"head.scratch.\1"),
    (r"output_conv$", "head.scratch.output_conv.0"),
    (r"classifier$", "head.scratch.output_conv.2"),
  ),
  signature=("backbone.cls_token", "head.scratch.output_conv.2.weight"),
  describe=_describe,
  lacks=ENCODER.lacks,
)
