"""Evaluation batches of images of one size each, which is their own."""

from collections.abc import Iterator

import grain
import numpy as np

from semiseg_jax.input.shares import share_of
from semiseg_jax.input.sources import Source
from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms.geometry import Record


class OwnSizeBatches:
  """What `EvalBatches` makes, without margins: each batch is of images of one size.

  Images wait until there are enough of their size; at the end each size's rest is a batch, filled
  up by repeats with index -1 and labels of IGNORE alone. Every host reads every image, so that all
  make the same batches, and has its rows of them.
  """

  def __init__(
    self,
    source: Source,
    *,
    batch: int,
    host: tuple[int, int] = (0, 1),
    devices: int = 1,
    threads: int = 2,
    buffer: int = 2,
  ):
    self._source = source
    self._batch, self._own = share_of(source, batch, host, devices)
    self._read = grain.ReadOptions(threads, max(buffer * batch, threads))

  def __iter__(self) -> Iterator[Record]:
    records = grain.MapDataset.range(len(self._source)).map(self._record)
    waiting: dict[tuple, list[Record]] = {}
    for record in records.to_iter_dataset(self._read):
      size = record["image"].shape, record["label"].shape
      waiting.setdefault(size, []).append(record)
      if len(waiting[size]) == self._batch:
        yield self._joined(waiting.pop(size))
    yield from map(self._joined, waiting.values())

  def _record(self, row: int) -> Record:
    record = self._source[row]
    size = np.asarray(record["image"].shape[:2], np.int32)
    return {**record, "valid_size": size, "index": np.int32(row)}

  def _joined(self, records: list[Record]) -> Record:
    filler = {**records[-1], "index": np.int32(-1)}
    filler["label"] = np.full_like(filler["label"], IGNORE)
    rows = (records + [filler] * (self._batch - len(records)))[self._own]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
