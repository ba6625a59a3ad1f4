"""The original's recorded draws of contrasted pixels, by class id."""

import numpy as np

from semiseg_jax.losses.pools import Draws


def contrast_draws(recorded: dict[str, np.ndarray], num_classes: int) -> Draws:
  """From positions among the classes present, in rotated order, to class ids and own positions.

  recorded: reco_query_index [V,Q], reco_neg_index [V,Q,N] (sorted by class), reco_valid_classes
  [V], reco_label one-hot [B,C,h,w] and reco_mask [B,1,h,w].
  """
  present = recorded["reco_valid_classes"]
  counts = (recorded["reco_label"] * recorded["reco_mask"]).sum((0, 2, 3)).astype(int)
  count = len(present)
  shape = recorded["reco_neg_index"].shape[1:]
  query_index = np.zeros((num_classes, shape[0]), np.int32)
  negative_class = np.zeros((num_classes, *shape), np.int32)
  negative_index = np.zeros((num_classes, *shape), np.int32)
  for i, class_id in enumerate(present):
    if recorded["reco_query_index"][i, 0] < 0:  # a class without hard pixels draws nothing
      continue
    rotated = np.array([present[(i + 1 + j) % count] for j in range(count - 1)])
    ends = np.cumsum(counts[rotated])
    drawn = np.searchsorted(ends, recorded["reco_neg_index"][i], side="right")
    query_index[class_id] = recorded["reco_query_index"][i]
    negative_class[class_id] = rotated[drawn]
    negative_index[class_id] = recorded["reco_neg_index"][i] - (ends - counts[rotated])[drawn]
  return Draws(query_index, negative_class, negative_index)
