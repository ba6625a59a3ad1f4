"""C3-SemiSeg's DeepLabV2 (Zhou et al. 2021), such as `best_model.pth`, and what its files share.

The projection head is in a second file, `best_embedding_module.pth`: see `Family.apart`.
"""

from semiseg_jax.convert.family import Family, noted, trunk

APART = "embedding_module."


def plus_rules(ours: str, aspp: str, decoder: str, convs: int = 4) -> tuple[tuple[str, str], ...]:
  """Of DeepLabV3+'s parts (models/plus.py) behind a pattern of ours, by the originals' names.

  convs: the branches of ASPP beside the pooled one.
  """
  return (
    *((rf"{ours}ASPP\.convs\.{i}\b", f"{aspp}.aspp{i + 1}") for i in range(convs)),
    (rf"{ours}ASPP\.convs\.{convs}\b", f"{aspp}.avg_pool"),
    (rf"{ours}ASPP\.project\.0$", f"{aspp}.conv1"),
    (rf"{ours}ASPP\.project\.1$", f"{aspp}.bn1"),
    (rf"{ours}project\.0$", f"{decoder}.conv1"),
    (rf"{ours}project\.1$", f"{decoder}.bn1"),
    (rf"{ours}decoder\b", f"{decoder}.output"),
  )


PROJECTION = (
  (r"projection\.(conv_[12])$", rf"{APART}emb_1.\1"),
  (r"projection\.last$", f"{APART}decoder.output.7"),
  *plus_rules(r"projection\.", f"{APART}emb_1", f"{APART}decoder"),
)


def common(shapes, extra) -> dict:
  """What a file says of any of the networks but its trunk and its classes."""
  lasts = {"projection_mlp": "emb_1.conv_2.bias", "projection_aspp": "decoder.output.7.bias"}
  freeze = noted(extra, "config", "arch", "args", "freeze_bn")
  return {
    "freeze_bn": "trunk" if freeze in (None, True) else "none",
    "heads": {k: shapes[APART + v][0] for k, v in lasts.items() if APART + v in shapes},
    "normalization": "imagenet",
  }


def _describe(shapes, extra) -> dict:
  return {
    "name": "deeplabv2_coco",
    "num_classes": shapes["decoder.conv2d_list.0.bias"][0],
    **trunk(shapes, "body."),
    "output_stride": 8,
    "classifier_branches": 2,
    **common(shapes, extra),
  }


FAMILY = Family(
  name="c3_deeplabv2",
  title="C3-SemiSeg's DeepLabV2",
  rules=(
    (r"trunk\.", "body."),
    (r"classifier\.conv2d_list\b", "decoder.conv2d_list"),
    *PROJECTION,
  ),
  signature=("body.conv1.weight", "decoder.conv2d_list.0.weight"),
  describe=_describe,
  apart=APART,
)
