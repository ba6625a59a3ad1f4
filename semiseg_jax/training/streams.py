"""From the data section of a config to batches."""

import jax
import numpy as np
from ml_collections import ConfigDict

from semiseg_jax.contract import Batch
from semiseg_jax.input.partial import PartialLabels
from semiseg_jax.input.pipeline import eval_batches, train_batches
from semiseg_jax.input.sources import Dataset, Subset, open_dataset
from semiseg_jax.input.splits import labeled_indices, unlabeled_indices
from semiseg_jax.input.transforms import ScaleCrop


def open_data(config: ConfigDict) -> Dataset:
  """The dataset of config.data."""
  names = config.class_names.split(",") if config.class_names else None
  return open_dataset(
    config.name,
    data_dir=config.data_dir,
    root=config.root,
    variant=config.variant,
    class_names=names,
    ignore_index=config.ignore_index,
    palette=colors(config.palette) if config.palette else None,
    resize=config.resize,
  )


def colors(text: str) -> list[list[int]]:
  """RGB of "4682b4,804080". ValueError for anything else."""
  try:
    palette = [list(bytes.fromhex(color)) for color in text.split(",")]
  except ValueError:
    palette = [[]]
  if any(len(color) != 3 for color in palette):
    raise ValueError(f'config.data.palette={text!r} should be colours such as "4682b4,804080"')
  return palette


class TrainStream:
  """The endless batches of a run, stacked where several make an update; counts what it shows.

  unlabeled: whether the method wants the second stream. Its state is one JSON value; the recipe
  beside it says which stream it belongs to.
  """

  def __init__(self, config: ConfigDict, dataset: Dataset, unlabeled: bool):
    data = config.data
    source = dataset.train
    chosen = labeled_indices(
      data.labeled, source, dataset.info, rule=data.rule, min_classes=data.min_classes
    )
    others = unlabeled_indices(chosen, source)
    if data.partial:
      source = PartialLabels(source, data.partial, config.seed, dataset.info.num_classes)
    self._accumulate = config.training.accumulate
    self._batches = train_batches(
      Subset(source, chosen),
      Subset(source, others) if unlabeled else None,
      seed=config.seed,
      labeled_batch=data.labeled_batch,
      unlabeled_batch=data.unlabeled_batch if unlabeled else 0,
      labeled_transform=ScaleCrop(tuple(data.scale_range), tuple(data.crop)),
      unlabeled_transform=ScaleCrop((1.0, 1.0), tuple(data.crop)),
      host=(jax.process_index(), jax.process_count()),
      threads=data.threads,
      workers=data.workers,
      buffer=data.buffer,
    )
    per_batch = data.labeled_batch + (data.unlabeled_batch if unlabeled else 0)
    self.images_per_step = per_batch * self._accumulate
    self.labeled_count, self.unlabeled_count = len(chosen), len(others) if unlabeled else 0
    self.recipe = {
      "seed": config.seed,
      "labeled_batch": data.labeled_batch,
      "unlabeled_batch": data.unlabeled_batch if unlabeled else 0,
      "labeled_count": self.labeled_count,
      "unlabeled_count": self.unlabeled_count,
      "accumulate": self._accumulate,
    }

  def next(self) -> Batch:
    """This host's rows of the next update, as numpy arrays."""
    if self._accumulate == 1:
      return next(self._batches)
    batches = [next(self._batches) for _ in range(self._accumulate)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)

  def get_state(self) -> dict:
    return {"iterator": self._batches.get_state(), "recipe": self.recipe}

  def set_state(self, state: dict) -> None:
    """Goes on where get_state was called. ValueError if that was another stream."""
    if state["recipe"] != self.recipe:
      raise ValueError(
        f"the checkpoint's data order was made by {state['recipe']}, this config makes "
        f"{self.recipe}: the run can't be resumed exactly"
      )
    self._batches.set_state(state["iterator"])

  def close(self) -> None:
    self._batches.close()


def validation_batches(config: ConfigDict, dataset: Dataset):
  """Every validation image once, padded to config.evaluation.size or else the dataset's own."""
  size = config.evaluation.size or dataset.info.size
  return eval_batches(
    dataset.val,
    batch=config.evaluation.batch,
    size=tuple(size),
    host=(jax.process_index(), jax.process_count()),
  )
