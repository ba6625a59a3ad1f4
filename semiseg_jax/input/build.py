"""From a config to datasets and the streams of a run."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict
from ml_collections.config_flags import config_path

from semiseg_jax.input.datasets import open_dataset
from semiseg_jax.input.local_copy import local_copy
from semiseg_jax.input.partial import PartialLabels
from semiseg_jax.input.pipeline import Stream
from semiseg_jax.input.pseudo_labels import PseudoLabels, Unlabeled
from semiseg_jax.input.sources import (
  Dataset,
  DatasetInfo,
  Joined,
  Source,
  Subset,
  Transformed,
  largest_size,
)
from semiseg_jax.input.splits import labeled_indices, unlabeled_indices, val_indices
from semiseg_jax.paths import user_path
from semiseg_jax.transforms import make_eval_transform, make_transform
from semiseg_jax.values import split_names


def open_data(config: ConfigDict, split: str = "val") -> Dataset:
  """The dataset of config.data; its validation images as config.evaluation wants to see them.

  split: what stands in their place, "test" or "train"; ValueError for a set that is not there.
  """
  data, evaluation = config.data, config.evaluation
  names = split_names(data.class_names) if data.class_names else None
  dataset = open_dataset(
    data.name,
    data_dir=data.data_dir,
    root=data.root,
    variant=data.variant,
    class_names=names,
    ignore_index=data.ignore_index,
    palette=colors(data.palette) if data.palette else None,
    resize=data.resize,
  )
  val = _with_masks(dataset, split)
  val = Subset(val, val_indices(evaluation.subset, val))
  val = Transformed(val, make_eval_transform(evaluation.transform))
  info = dataclasses.replace(dataset.info, size=largest_size(val.sizes))
  return dataclasses.replace(dataset, info=info, val=val)


def _with_masks(dataset: Dataset, split: str) -> Source:
  """The images of a set that can be scored: of training, those with a mask."""
  source = getattr(dataset, split)
  if source is None:
    raise ValueError(f"--split={split}: {dataset.info.name} has no such set with masks")
  if not np.any(source.labeled):
    raise ValueError(
      f"none of the {len(source)} images of {split} in {dataset.info.name} has a mask: there is "
      "nothing to score, so prepare it with masks"
    )
  if split == "val":
    return source
  return Subset(source, np.flatnonzero(source.labeled))


def labeled_source(dataset: Dataset, config: ConfigDict, target: DatasetInfo) -> Source:
  """The labelled images of another domain. ValueError if its classes are not the target's."""
  ours, theirs = target.class_names, dataset.info.class_names
  if ours != theirs:
    raise ValueError(
      f"config.data.domain.name={config.domain.name!r} has other classes ({', '.join(theirs)}) "
      f"than {target.name} ({', '.join(ours)})"
    )
  return Subset(dataset.train, np.flatnonzero(dataset.train.labeled))


def colors(text: str) -> list[list[int]]:
  """RGB of "4682b4,804080". ValueError for anything else."""
  try:
    palette = [list(bytes.fromhex(color)) for color in text.split(",")]
  except ValueError:
    palette = [[]]
  if any(len(color) != 3 for color in palette):
    raise ValueError(f'config.data.palette={text!r} should be colours such as "4682b4,804080"')
  return palette


def train_streams(
  config: ConfigDict, dataset: Dataset, names: Sequence[str], domain_dataset: Dataset | None = None
) -> dict[str, Stream]:
  """What the batches of a run are made of.

  names: of those that the method wants, "labeled" and "unlabeled". domain_dataset: the second
  domain, if it is not to be opened as config.data.domain says.
  """
  data, source = config.data, dataset.train
  transform = lambda path: make_transform(
    config_path.get_value(path, data), tuple(data.crop), f"config.data.{path}"
  )
  labeled = labeled_indices(
    data.labeled, source, dataset.info, rule=data.rule, min_classes=data.min_classes
  )
  others = unlabeled_indices(labeled, source, data.unlabeled)
  if data.partial:
    source = PartialLabels(source, data.partial, config.seed, dataset.info.num_classes)
  stream = lambda source, name: Stream(
    source, transform(f"{name}_transform"), data[f"{name}_batch"], data.replacement
  )
  streams = {"labeled": stream(Subset(source, labeled), "labeled")}
  if "unlabeled" in names:
    rest = Subset(source, others)
    if data.extra_unlabeled:
      if dataset.extra is None:
        raise ValueError(
          f"config.data.extra_unlabeled is set, but {dataset.info.name} was prepared without "
          "further unlabelled images"
        )
      rest = Joined(rest, dataset.extra)
    if data.pseudo_labels:
      rest = PseudoLabels(rest, local_copy(user_path(data.pseudo_labels)))
    elif config.rounds.count:
      rest = Unlabeled(rest)
    streams["unlabeled"] = stream(rest, "unlabeled")
  if data.domain.name:
    other = domain_dataset or open_dataset(
      data.domain.name, data_dir=data.data_dir, variant=data.domain.variant
    )
    other = labeled_source(other, data, dataset.info)
    streams["domain"] = Stream(other, transform("domain.transform"), data.domain.batch)
  return streams
