"""What pytorch-segmentation's files share."""

from typing import Any


def describe(name: str, num_classes: int, output_stride: int, **others: Any) -> dict[str, Any]:
  """A network of its; the normalization is that of the dataset, which a file does not say."""
  return {
    "name": name,
    "num_classes": num_classes,
    "output_stride": output_stride,
    "normalization": None,
    **others,
  }
