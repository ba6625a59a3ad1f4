"""A PyTorch state dict of the original as our trees: a rule, not a list."""

from typing import Any

import numpy as np

_STATISTICS = {"running_mean": "mean", "running_var": "var"}


def to_trees(state_dict: dict[str, np.ndarray]) -> tuple[dict, dict]:
  """(params, batch_stats) as `networks.split` has them; every key is used once."""
  params, batch_stats = {}, {}
  for key, array in state_dict.items():
    *path, leaf = key.replace("resnet_", "resnet.").split(".")
    if leaf == "num_batches_tracked":
      continue
    if leaf in _STATISTICS:
      _insert(batch_stats, path, _STATISTICS[leaf], array)
    elif leaf == "weight" and array.ndim == 4:
      _insert(params, path, "kernel", array.transpose(2, 3, 1, 0))  # OIHW -> HWIO
    else:
      _insert(params, path, {"weight": "scale", "bias": "bias"}[leaf], array)
  return params, batch_stats


def at(tree: dict, layer: str) -> Any:
  """The subtree of a layer of the original, such as "resnet_layer4.2.bn3"."""
  for part in layer.replace("resnet_", "resnet.").split("."):
    tree = tree[part]
  return tree


def _insert(tree: dict, path: list[str], leaf: str, array: np.ndarray) -> None:
  for part in path:
    tree = tree.setdefault(part, {})
  assert leaf not in tree, (path, leaf)
  tree[leaf] = array
