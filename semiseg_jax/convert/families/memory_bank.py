"""The class-wise memory bank's networks (Alonso et al. 2021), such as `best_model.pth`.

Both layouts of its DeepLabV2 have the same keys and shapes: only the configuration in the file
tells them apart, and which dataset's mean the inputs are centred with.
"""

from semiseg_jax.convert.family import Family, noted, trunk

_DATASETS = {"cityscapes": "cityscapes", "pascal_voc": "pascal"}
_OF_CLASSES = {19: "cityscapes", 21: "pascal"}


def _describe(shapes, extra) -> dict:
  pretraining = noted(extra, "config", "training", "pretraining")
  head_dim = shapes["projection_head.0.bias"][0]
  if "aspp.aspp1.atrous_conv.weight" in shapes:
    model = {"name": "deeplabv3plus", "output_stride": 16}
    model["num_classes"] = shapes["decoder.last_conv.bias"][0]
    model["decoder_dim"] = shapes["aspp.conv1.weight"][0]
    colors = "rgb"
  else:
    layout = {None: None, "COCO": "deeplabv2_coco"}.get(pretraining, "deeplabv2_imagenet")
    model = {"name": layout, "output_stride": 8, "classifier_branches": 2}
    model["num_classes"] = shapes["layer5.conv2d_list.0.bias"][0]
    colors = {None: None, "COCO": "bgr"}.get(pretraining, "rgb")
  dataset = _DATASETS.get(noted(extra, "config", "dataset"), _OF_CLASSES.get(model["num_classes"]))
  known = dataset and colors
  return {
    **model,
    **trunk(shapes, ""),
    "heads": {"selectors": head_dim},
    "normalization": f"{dataset}_{colors}" if known else None,
  }


FAMILY = Family(
  name="memory_bank",
  title="the class-wise memory bank's DeepLab",
  rules=(
    (r"trunk\.", ""),
    (r"classifier\.conv2d_list\b", "layer5.conv2d_list"),
    *((rf"ASPP\.convs\.{i}\.0\b", f"aspp.aspp{i + 1}.atrous_conv") for i in range(4)),
    *((rf"ASPP\.convs\.{i}\.1\b", f"aspp.aspp{i + 1}.bn") for i in range(4)),
    (r"ASPP\.convs\.4\b", "aspp.global_avg_pool"),
    (r"ASPP\.project\.0\b", "aspp.conv1"),
    (r"ASPP\.project\.1\b", "aspp.bn1"),
    (r"project\.0\b", "decoder.conv1"),
    (r"project\.1\b", "decoder.bn1"),
    (r"decoder\b", "decoder.pre_last_conv"),
    (r"classifier$", "decoder.last_conv"),
    (r"(projection_head|prediction_head)\b", r"\1"),
    (r"selectors\b", "contrastive_class_selector_{c}"),
    (r"memory_selectors\b", "contrastive_class_selector_memory{c}"),
  ),
  signature=("conv1.weight", "projection_head.0.weight", "contrastive_class_selector_0.0.weight"),
  describe=_describe,
)
