"""What the labels of a set as a whole look like, and what of it is seldom meant."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from semiseg_jax.input.class_ids import values_line
from semiseg_jax.input.sources import DatasetInfo
from semiseg_jax.labels import IGNORE

_NAMED = 5  # classes in a sentence


class Pixels(NamedTuple):
  """Those of masks: int64 [K] of each class, and the number of those without a label."""

  of_class: np.ndarray
  ignored: int = 0


def count_pixels(label: np.ndarray, num_classes: int) -> Pixels:
  """Of a label uint8 [H,W]."""
  counts = np.bincount(label.reshape(-1), minlength=IGNORE + 1)
  return Pixels(counts[:num_classes], int(counts[IGNORE]))


def added(parts: Iterable[Pixels], num_classes: int) -> Pixels:
  """Of several masks together."""
  of_class, ignored = np.zeros(num_classes, np.int64), 0
  for part in parts:
    of_class, ignored = of_class + part.of_class, ignored + part.ignored
  return Pixels(of_class, ignored)


def findings(pixels: Pixels, masks: str, info: DatasetInfo) -> list[str]:
  """A line on each thing that is seldom meant: no label, a single class, a class without a pixel,
  more than half ignored; with what to write where that may be a matter of ids.

  masks: what they are called, such as "the 9 masks of train".
  """
  names, (of_class, ignored) = info.class_names, pixels
  present = [name for name, count in zip(names, of_class, strict=True) if count]
  absent = [name for name, count in zip(names, of_class, strict=True) if not count]
  if not ignored + of_class.sum():
    return []  # of masks that could not be read
  share = ignored / (ignored + of_class.sum())
  found = []
  if not present:
    found.append(f"no pixel of {masks} has a label")
  elif len(present) == 1:
    without = f": {_several(absent)} has no pixel" if absent else ""
    found.append(f"{present[0]} is the only class in {masks}{without}")
  elif absent:
    found.append(f"no pixel of {masks} is of {_several(absent)}")
  if share > 0.5 and present:
    found.append(f"{share:.0%} of the pixels of {masks} are ignored")
  if found and present and ignored and info.ignore_index is not None:
    found[-1] += f"; {_hint(pixels, present, absent, info)}"
  return found


def _hint(pixels: Pixels, present: list[str], absent: list[str], info: DatasetInfo) -> str:
  """What to write if the ignored id is a class."""
  values = {info.class_names.index(name): name for name in present}
  values[info.ignore_index] = (absent or ["NAME"])[0]
  share = pixels.ignored / (pixels.ignored + pixels.of_class.sum())
  return (
    f"if {info.ignore_index}, the ignored id of {share:.0%} of them, is a class, write to "
    f"dataset.toml {values_line(values)}"
  )


def _several(names: Sequence[str]) -> str:
  more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
  return ", ".join(names[:_NAMED]) + more
