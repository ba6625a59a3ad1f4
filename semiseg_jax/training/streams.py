"""The batches of a run: its endless stream, and its validation images."""

from collections.abc import Iterable

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from semiseg_jax.contract import Batch
from semiseg_jax.input.own_size import OwnSizeBatches
from semiseg_jax.input.pipeline import EvalBatches, Stream, train_batches
from semiseg_jax.input.sources import Dataset


class TrainStream:
  """The endless batches of a run, stacked where several make an update; counts what it shows.

  Its state is one JSON value; the recipe beside it says which streams it belongs to.
  """

  def __init__(self, config: ConfigDict, streams: dict[str, Stream]):
    data = config.data
    self._accumulate = config.training.accumulate
    self._batches = train_batches(
      streams,
      seed=config.seed,
      host=(jax.process_index(), jax.process_count()),
      sharding=data.sharding,
      threads=data.threads,
      workers=data.workers,
      buffer=data.buffer,
    )
    self.images_per_step = sum(stream.batch for stream in streams.values()) * self._accumulate
    self.counts = {name: len(stream.source) for name, stream in streams.items()}
    self.recipe = {
      "seed": config.seed,
      "accumulate": self._accumulate,
      "batches": {name: stream.batch for name, stream in streams.items()},
      "images": self.counts,
      "records_of_hosts": jax.process_count() if data.sharding == "records" else 1,
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


def validation_batches(config: ConfigDict, dataset: Dataset, mesh: Mesh) -> Iterable[Batch]:
  """Every validation image once, padded to config.evaluation.size or else the dataset's own.

  With config.evaluation.own_size they have no margins, and every batch is of images of one size.
  """
  options = {
    "batch": config.evaluation.batch,
    "host": (jax.process_index(), jax.process_count()),
    "devices": mesh.size,
  }
  if config.evaluation.own_size:
    return OwnSizeBatches(dataset.val, **options)
  return EvalBatches(
    dataset.val, size=tuple(config.evaluation.size or dataset.info.size), **options
  )
