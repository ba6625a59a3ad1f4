"""The published label splits: which images were labelled in the papers' experiments.

What follows from a rule is generated here. What does not is stored in data/DATASET: the
official listings to which the rules apply, DST-CBC's small validation sets, the memory bank's
permutations as far as its labelled sets reach, and UniMatch's labelled sets. docs/splits.md has the
table of all names.
"""

import gzip
import math
import pathlib
import random
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Lists = dict[str, list[str]]

_HERE = pathlib.Path(__file__).parent
_LISTINGS = {  # the stored order is the sorted order
  "cityscapes": {"train": "train", "val": "val"},
  "pascal": {"train": "train_aug", "val": "val"},
}
_ADE20K = {"train": 20_210, "val": 2_000}  # numbered from 1
_SETS = range(3)  # random sets of DST-CBC and of the memory bank
_DST_CBC_SEED = 7777
_DST_CBC = {  # name -> divisor; 106 and 30 are rounded names of those that give 100 images
  "cityscapes": {"1": 1, "4": 4, "8": 8, "30": 29.75},
  "pascal": {"1": 1, "2": 2, "4": 4, "8": 8, "20": 20, "50": 50, "106": 105.82},
}
_DMT = ("8", "20", "50", "106")  # the sets of Pascal of which DMT samples, in its order
_DMT_SHARE = 0.2  # of a set that a sample leaves out
_MEMORY_BANK = {"cityscapes": (100, 372, 744), "pascal": (212, 530, 1323)}  # labelled images
_C3_COUNTS, _C3_SEEDS = (100, 372, 744), (12345, 23456, 34567)


def lists(dataset: str, split: str, ids: Sequence[str]) -> Lists:
  """All published lists of ids of a split by name, such as "dst_cbc/30_0" of Cityscapes' train.

  Labelled sets; what is unlabelled is the rest of the listing. UniMatch's are there as far as all
  their images are; the others, which follow from rules, if `ids` is exactly the `listing`.
  """
  stored = unimatch(dataset, ids) if split == "train" else {}
  if dataset not in _LISTINGS or not ids or list(ids) != listing(dataset, split):
    return stored
  if split == "val":
    return {"dst_cbc/valtiny": _read(dataset, "valtiny")}
  rows = np.loadtxt(_path(dataset, "memory_bank"), np.int64)
  found = dst_cbc(ids, _DST_CBC[dataset]) | memory_bank(ids, rows, _MEMORY_BANK[dataset])
  return stored | found | (c3(ids) if dataset == "cityscapes" else dmt(found))


def listing(dataset: str, split: str) -> list[str]:
  """The official ids in the order in which records are stored; empty where they are not known.

  Known: train (2,975) and val (500) of cityscapes, train (10,582) and val (1,449) of pascal, train
  (20,210) and val (2,000) of ade20k.
  """
  if dataset == "ade20k":
    return [f"ADE_{split}_{i:08d}" for i in range(1, 1 + _ADE20K.get(split, 0))]
  name = _LISTINGS.get(dataset, {}).get(split)
  return _read(dataset, name) if name else []


def dst_cbc(ids: Sequence[str], divisors: Mapping[str, float]) -> Lists:
  """DST-CBC's generator: one list is shuffled again for every set, labelled sets are its starts.

  A labelled set never leaves one image over in batches of eight.
  """
  generator, shuffled, found = random.Random(_DST_CBC_SEED), list(ids), {}
  for number in _SETS:
    generator.shuffle(shuffled)
    for name, divisor in divisors.items():
      count = int(len(ids) / divisor)
      found[f"dst_cbc/{name}_{number}"] = shuffled[: count + (count % 8 == 1)]
  return found


def dmt(sets: Lists) -> Lists:
  """DMT's two samples of a set of DST-CBC's, for two networks that are to differ.

  Each leaves out a fifth of the set, one its end and one its start, after a shuffle.
  """
  generator, found = random.Random(_DST_CBC_SEED), {}
  for number in _SETS:
    for name in _DMT:
      ids = list(sets[f"dst_cbc/{name}_{number}"])
      generator.shuffle(ids)
      out = math.ceil(_DMT_SHARE * len(ids))
      found[f"dmt/{name}_{number}_left"] = ids[: len(ids) - out]
      found[f"dmt/{name}_{number}_right"] = ids[out:]
  return found


def c3(ids: Sequence[str]) -> Lists:
  """C3-SemiSeg's subsets of Cityscapes, a reconstruction: its own files are empty.

  Names, sizes and seeds are those of Britefury/cutmix-semisup-seg, whose rule this is.
  """
  found = {}
  for seed in _C3_SEEDS:
    order = np.random.RandomState(seed).permutation(len(ids))
    for count in _C3_COUNTS:
      found[f"c3/{count}_seed{seed}"] = [ids[row] for row in order[:count]]
  return found


def memory_bank(ids: Sequence[str], rows: np.ndarray, counts: Sequence[int]) -> Lists:
  """The memory bank's labelled sets. rows: int [n,3], the starts of its three permutations.

  Those of Cityscapes refer to an unsorted listing of the authors' disk, which is lost; read against
  the sorted one, as here, the sets are as random as theirs, but not the same images.
  """
  return {
    f"memory_bank/{count}_{number}": [ids[row] for row in rows[:count, number]]
    for number in _SETS
    for count in counts
  }


def unimatch(dataset: str, ids: Iterable[str]) -> Lists:
  """UniMatch's labelled sets, in its files' order, of which all images are among the ids."""
  known = set(ids)
  return {
    name: images for name, images in unimatch_sets(dataset).items() if known.issuperset(images)
  }


def unimatch_sets(dataset: str) -> Lists:
  """All of them by name, such as "unimatch/1_16"; empty for a dataset that has none."""
  found: Lists = {}
  if _path(dataset, "unimatch").is_file():
    for line in gzip.decompress(_path(dataset, "unimatch").read_bytes()).decode().splitlines():
      name, image = line.split()
      found.setdefault(f"unimatch/{name}", []).append(image)
  return found


def _path(dataset: str, name: str) -> pathlib.Path:
  return _HERE / dataset / f"{name}.txt.gz"


def _read(dataset: str, name: str) -> list[str]:
  return gzip.decompress(_path(dataset, name).read_bytes()).decode().split()
