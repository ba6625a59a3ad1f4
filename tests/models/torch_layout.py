"""A PyTorch state dict of an original as our trees: a rule, not a list."""

import re

import jax
import numpy as np

_STATISTICS = {"running_mean": "mean", "running_var": "var"}
_SELECTOR = re.compile(r"contrastive_class_selector_(memory)?(\d+)\.")


def to_trees(state_dict: dict[str, np.ndarray]) -> tuple[dict, dict]:
  """(params, batch_stats) as `split_network` has them; every key is used once.

  The selectors of the classes, where there are any, are stacked.
  """
  params, batch_stats, selectors = {}, {}, {}
  for key, array in state_dict.items():
    if selector := _SELECTOR.match(key):
      name = "memory_selectors" if selector[1] else "selectors"
      own = selectors.setdefault(name, {}).setdefault(int(selector[2]), {})
      own[key.removeprefix(selector[0])] = array
      continue
    *path, leaf = key.replace("resnet_", "trunk.").split(".")
    if leaf == "num_batches_tracked":
      continue
    if leaf in _STATISTICS:
      _insert(batch_stats, path, _STATISTICS[leaf], array)
    elif leaf == "weight" and array.ndim == 4:
      _insert(params, path, "kernel", array.transpose(2, 3, 1, 0))  # OIHW -> HWIO
    elif leaf == "weight" and array.ndim == 2:
      _insert(params, path, "kernel", array.T)
    else:
      _insert(params, path, {"weight": "scale", "bias": "bias"}[leaf], array)
  for name, of_class in selectors.items():
    trees = [to_trees(of_class[c]) for c in range(len(of_class))]
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *trees)
    params[name], batch_stats[name] = stacked
  return params, batch_stats


def _insert(tree: dict, path: list[str], leaf: str, array: np.ndarray) -> None:
  for part in path:
    tree = tree.setdefault(part, {})
  assert leaf not in tree, (path, leaf)
  tree[leaf] = array
