"""Which images of a set are labelled, which are unlabelled, which are validated on.

`select_balanced` and `select_sun` follow ReCo (section 4.1 and its released code): given the same
listing, the same images are chosen for the same seed. The listing is the source's, in sorted order.
"""

import difflib
import random
import re

import numpy as np

from semiseg_jax.input.counts import class_counts
from semiseg_jax.input.sources import DatasetInfo, Source
from semiseg_jax.input.text import read_text
from semiseg_jax.paths import user_path

_RECO = re.compile(r"reco/(\d+)_(\d+)")
_FRACTION = re.compile(r"1/(\d+)_(\d+)")


def labeled_indices(
  spec: str, source: Source, info: DatasetInfo, rule: str = "balanced", min_classes: int = 3
) -> np.ndarray:
  """int64 rows of `source` to be used with their labels; images without a mask are never chosen.

  spec, the first of these that it is:
    "all"
    "reco/20_0"     20 images that balance the classes, seed 0; 0 images = all
    "1/8_0"         an eighth at random, seed 0
    "dst_cbc/30_0"  a subset that the prepared set knows by this name
    a path          of a text file with one id per line
  rule: "balanced" (min_classes 3 on Pascal VOC, 12 on Cityscapes) or "sun", for "reco/...".

  Raises ValueError where the spec cannot be met, naming the nearest published subsets.
  """
  listing = np.flatnonzero(source.labeled)
  if not listing.size:
    raise ValueError("no image of the training set has a label")
  if spec == "all":
    return listing
  if match := _RECO.fullmatch(spec):
    return _select(listing, source, info, *map(int, match.groups()), rule, min_classes)
  if match := _FRACTION.fullmatch(spec):
    parts, seed = map(int, match.groups())
    if not 1 <= parts <= len(listing):
      raise ValueError(f"{spec!r} of {len(listing)} labelled images is not one image")
    order = np.random.RandomState(seed).permutation(len(listing))
    return np.sort(listing[order[: len(listing) // parts]])
  rows = _listed(spec, source, "labels", "all, reco/COUNT_SEED, 1/PARTS_SEED, ")
  return _with_masks(rows, source, spec)


def unlabeled_indices(labeled: np.ndarray, source: Source, spec: str = "rest") -> np.ndarray:
  """int64 rows to be used without their labels.

  spec: "rest", what is not labelled in listing order, or every image if all are labelled (as the
  originals have it); "rest of SUBSET", what is not in that one, of which the labelled ones are a
  part (DMT); "all", labelled ones included (C3 on BDD100K); or a subset or file of ids as in
  labeled_indices. ValueError if a labelled image is in any but "all".
  """
  everything = np.arange(len(source))
  if spec == "all":
    return everything
  if spec == "rest":
    rest = np.setdiff1d(everything, labeled)
    return rest if rest.size else everything
  what, others = "unlabeled images", "rest, rest of SUBSET, all, "
  if spec.startswith("rest of "):
    rows = np.setdiff1d(everything, _listed(spec[len("rest of ") :], source, what, others))
  else:
    rows = _listed(spec, source, what, others)
  if shared := [source.ids[row] for row in np.intersect1d(rows, labeled)]:
    raise ValueError(
      f'{spec}: {len(shared)} of the images are labelled ones, first {shared[:3]}; take "rest", or '
      '"all" if they are to be used twice'
    )
  return rows


def val_indices(spec: str | None, source: Source) -> np.ndarray:
  """int64 rows to be scored: None = all, or a subset such as "dst_cbc/valtiny", or a file of ids.

  Raises ValueError as labeled_indices does.
  """
  if spec is None:
    return np.arange(len(source))
  return _with_masks(_listed(spec, source, "validation images", ""), source, spec)


def select_balanced(presence: np.ndarray, count: int, seed: int, min_classes: int) -> list[int]:
  """Rows chosen so that rare classes keep up; in order of selection.

  presence: bool [n,K], the classes of each image in listing order. An image is taken if it has at
  least min_classes classes and any of those chosen least so far. Raises ValueError if no
  remaining image qualifies.
  """
  presence = np.asarray(presence, bool)
  pool, skipped, chosen = _shuffled(len(presence), seed), [], []
  totals = np.zeros(presence.shape[1], int)
  fruitless = False  # nothing was chosen since the pool was last refilled
  while len(chosen) < count:
    if not pool:
      wanted = np.flatnonzero(totals == totals.min()).tolist()
      if fruitless or not skipped:
        raise ValueError(
          f"only {len(chosen)} of {count} images can be chosen from {len(presence)} (seed {seed}): "
          f"no remaining image has {min_classes} classes or more and any of the classes {wanted}, "
          "chosen least so far; lower min_classes or take a random fraction such as 1/8_0"
        )
      pool, skipped, fruitless = skipped, [], True
    image = pool.pop()
    classes = presence[image]
    if classes.sum() >= min_classes and (classes & (totals == totals.min())).any():
      chosen.append(image)
      totals += classes
      fruitless = False
    else:
      skipped.append(image)
  return chosen


def select_sun(presence: np.ndarray, count: int, seed: int) -> list[int]:
  """Rows chosen class by class, always for the first class chosen least; in order of selection.

  presence: bool [n,K]. Raises ValueError where the classes run out of images first.
  """
  presence = np.asarray(presence, bool)
  order, num_classes = _shuffled(len(presence), seed), presence.shape[1]
  images_of = [[i for i in order if presence[i, c]] for c in range(num_classes)]
  totals, wanted, exhausted = np.zeros(num_classes, int), list(range(num_classes)), set()
  chosen, taken = [], set()
  if count and not images_of[0]:
    raise ValueError("the rule starts with class 0, which is in no image")
  while len(chosen) < count:
    if not wanted:
      raise ValueError(
        f"only {len(chosen)} of {count} images can be chosen from {len(presence)} (seed {seed}): "
        f"the classes {sorted(exhausted)} have no further image; ask for fewer images"
      )
    first = wanted[0]
    if not images_of[first]:
      exhausted.add(first)
    elif (image := images_of[first].pop()) not in taken:
      chosen.append(image)
      taken.add(image)
      totals += presence[image]
      lowest = min(totals[c] for c in range(num_classes) if c not in exhausted)
      wanted = np.flatnonzero(totals == lowest).tolist()
    wanted = [c for c in wanted if c not in exhausted]
  return chosen


def _shuffled(n: int, seed: int) -> list[int]:
  order = list(range(n))
  random.Random(seed).shuffle(order)
  return order


def _select(listing, source, info, count, seed, rule, min_classes) -> np.ndarray:
  if count == 0:
    return listing
  if count > len(listing):
    raise ValueError(f"{count} labelled images asked for; only {len(listing)} have a label")
  presence = class_counts(source, info.num_classes)[listing] > 0
  if rule == "balanced":
    return listing[select_balanced(presence, count, seed, min_classes)]
  if rule == "sun":
    return listing[select_sun(presence, count, seed)]
  raise ValueError(f'unknown rule {rule!r}; it is "balanced" or "sun"')


def _listed(spec: str, source: Source, what: str, others: str) -> np.ndarray:
  """Rows of a published subset or of a file of ids, in the order of that list.

  what, others: of the error if it is neither, the forms besides these two that spec may have.
  """
  names = _ids(spec, source, f"{what} {spec!r} is neither {others}")
  row_of = {name: row for row, name in enumerate(source.ids)}
  if unknown := [name for name in names if name not in row_of]:
    raise ValueError(
      f"{spec}: {len(unknown)} ids are not in this set, first {unknown[:3]}; ids of this set look "
      f"like {source.ids[0]!r}"
    )
  if not names or len(set(names)) != len(names):
    raise ValueError(f"{spec}: {len(names)} ids, {len(set(names))} of them different")
  return np.asarray([row_of[name] for name in names], np.int64)


def _ids(spec: str, source: Source, complaint: str) -> list[str]:
  subsets = source.lists()
  if spec in subsets:
    return source.ids_of(spec)
  if (path := user_path(spec)).is_file():
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
  if subsets:
    near = difflib.get_close_matches(spec, subsets)
    hint = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(subsets)}"
  else:
    hint = (
      "this set has none published: they are of the complete Cityscapes and Pascal VOC, written by "
      "`python -m data.prepare NAME --raw=DIR` (docs/splits.md)"
    )
  raise ValueError(f"{complaint}a published split nor a file of ids; {hint}")


def _with_masks(rows: np.ndarray, source: Source, spec: str) -> np.ndarray:
  if without := [source.ids[row] for row in rows if not source.labeled[row]]:
    raise ValueError(f"{spec}: {len(without)} of the images have no mask, first {without[:3]}")
  return rows
