"""From the ids that a mask stores to classes."""

import numpy as np

from semiseg_jax.input.decode import DataError
from semiseg_jax.labels import IGNORE


class ClassIds:
  """ids 0..num_classes-1 stay, ignore_index becomes IGNORE, any other is a DataError."""

  def __init__(self, num_classes: int, ignore_index: int):
    self._num_classes, self._ignore_index = num_classes, ignore_index
    self._table = np.full(256, -1, np.int16)
    self._table[:num_classes] = np.arange(num_classes)
    if 0 <= ignore_index < 256:
      self._table[ignore_index] = IGNORE

  def __call__(self, stored: np.ndarray, where: str) -> np.ndarray:
    """Labels uint8 [H,W] of ids uint8 [H,W]. `where` names the mask in the error."""
    label = self._table[stored]
    if label.min() < 0:
      raise DataError(
        "label range",
        f"{where}: label ids {np.unique(stored[label < 0]).tolist()} are neither in "
        f"0..{self._num_classes - 1} nor the ignored id {self._ignore_index}",
      )
    return label.astype(np.uint8)
