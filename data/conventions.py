"""What is said of masks that number the classes in another way than a dataset's own release.

Such masks are no bad files, to be left out one by one, but all of the wrong kind.
"""

import pathlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from PIL import Image

from semiseg_jax.input.decode import DataError
from semiseg_jax.labels import IGNORE

KIND = "convention"  # of the error that skip_bad does not skip
_OF_MASKS = ("label range", "unknown colour", "mask format")  # what a wrong release looks like
_FEW_COLORS = 64  # the grey levels of more than these would be nearly all that there are
_ENOUGH = 8  # masks in which classes would leave a gap
Named = Mapping[str, Collection[int]]  # a convention, and ids that go with it


def unknown_ids(
  mask: pathlib.Path,
  ids: np.ndarray,
  class_of_id: np.ndarray,
  others: Named,
  palette: np.ndarray,
  wanted: str,
) -> DataError:
  """The error for a mask that holds ids without a class; of KIND where they fit another convention.

  others: all ids that each may have. palette: uint8 [K,3]. wanted: which files are meant.
  """
  found = np.unique(ids).tolist()
  unknown = [i for i in found if class_of_id[i] < 0]
  message = f"{mask}: {_some(unknown)} are no label ids of this dataset"
  likely = [what for what, theirs in others.items() if set(found) <= set(theirs)]
  if not likely and len(unknown) > 1 and len(set(found) - _greys(palette)) <= len(found) // 4:
    likely = ["colours that a program made grey"]  # the rest are colours of what is ignored
  if likely:
    return DataError(KIND, f"{message}; they look like {likely[0]}: take {wanted}")
  return DataError("label range", f"{message}: take {wanted}")


def check_palette(
  mask: Image.Image, path: pathlib.Path, class_of_id: np.ndarray, palette: np.ndarray, wanted: str
) -> None:
  """DataError of KIND for a mask of mode P in which an id has the colour of another class: a
  program that went by colours has numbered them anew."""
  colors = np.asarray(mask.getpalette("RGB"), np.uint8).reshape(-1, 3)
  for i in np.unique(np.asarray(mask)).tolist():
    drawn = np.flatnonzero((palette == colors[i : i + 1]).all(-1)) if i < len(colors) else ()
    if len(drawn) and class_of_id[i] not in (*drawn, IGNORE):
      theirs = np.flatnonzero(class_of_id == drawn[0])[0]
      message = f"{path}: id {i} has the colour of id {theirs}, so a program has renumbered them"
      raise DataError(KIND, f"{message}: take {wanted}")


def check_ids(
  split: str, counts: np.ndarray, class_of_id: np.ndarray, without: Named, wanted: str
) -> None:
  """ValueError where none of the ids occurs in a split that go with another convention's name.

  counts: int [n,K], pixels per class of every record.
  """
  pixels = counts.sum(0)
  for what, ids in without.items():
    if pixels.any() and not pixels[class_of_id[list(ids)]].any():
      none = f"no mask of {split} holds one of the ids {_some(sorted(ids))}"
      raise ValueError(f"{none}; they look like {what}: take {wanted}")


def check_objects(split: str, counts: np.ndarray, wanted: str) -> None:
  """ValueError where every mask counts from 1 without a gap, as one of objects does.

  counts: int [n,K], pixels per class of every record, the first of the background.
  """
  found = counts[counts[:, 1:].any(1), 1:] > 0
  several, gapless = found[:, 1:].any(), (np.diff(found.astype(int), axis=1) <= 0).all()
  if len(found) >= _ENOUGH and several and gapless:
    message = f"the ids of every mask of {split} are 1, 2, ... without a gap"
    raise ValueError(f"{message}; they look like numbers of objects: take {wanted}")


def check_skipped(split: str, skipped: Sequence[tuple[str, str]], used: int) -> None:
  """ValueError where more masks were left out, for what they hold, than images were used.

  skipped: kind and message of each.
  """
  wrong = [message for kind, message in skipped if kind in _OF_MASKS]
  if len(wrong) > used:
    raise ValueError(
      f"most masks of {split} ({len(wrong)}) are not of this dataset, so they are not skipped; the "
      f"first: {wrong[0]}"
    )


def _greys(palette: np.ndarray) -> set[int]:
  """The levels that the colours become where a program makes them grey, give or take one."""
  if len(palette) > _FEW_COLORS:
    return set()
  levels = np.rint(palette @ np.asarray([0.299, 0.587, 0.114])).astype(int).tolist()
  return {0, 255, *(level + step for level in levels for step in (-1, 0, 1))}


def _some(ids: Sequence[int]) -> str:
  return str(ids) if len(ids) <= 5 else f"[{ids[0]}, {ids[1]}, ..., {ids[-1]}]"
