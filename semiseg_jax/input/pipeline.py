"""Sources -> batches, in an order that follows from the seed and the step alone.

A batch holds the next rows of every stream. With several hosts each gets a contiguous block of
each, so the rows joined over hosts are in stream order for any number of hosts. The state of the
iterator is one integer, valid for other numbers of workers and hosts. With sharding="records" each
host has images of its own instead, and the order follows from the number of hosts too.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import grain
import numpy as np
from absl import flags

from semiseg_jax.input.shares import share_of
from semiseg_jax.input.sources import Source, Subset
from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms import geometry
from semiseg_jax.transforms.geometry import Record

SHARDINGS = ("batch", "records")

_ENDLESS = 1 << 40
_NUMBERS = {"labeled": 0, "unlabeled": 1, "domain": 2}  # in a stream's seed


class Stream(NamedTuple):
  """An endless shuffled stream: what it reads, what happens to a record, rows of a global batch.

  replacement: every place takes any record, instead of each record once an epoch.
  """

  source: Source
  transform: grain.transforms.RandomMap
  batch: int
  replacement: bool = False


def train_batches(
  streams: Mapping[str, Stream],
  *,
  seed: int,
  host: tuple[int, int] = (0, 1),
  sharding: str = "batch",
  threads: int = 2,
  workers: int = 0,
  buffer: int = 2,
) -> grain.DatasetIterator:
  """Endless batches with get_state(), set_state() and close(): this host's share, in numpy.

  {name: {"image": [b,H,W,3], "label": uint8 [b,H,W], "position": int32 [b]}} for every stream, of
  which there can be "labeled", "unlabeled" and "domain" (labelled images of another domain);
  position is the row's place in its stream, and transforms may add arrays of their own.
  host: (index, count). sharding: what hosts share out, each "batch" of all images or the
  "records", of which host h then reads h, h + count, ... alone. threads (in every worker process,
  if there are any) read ahead by `buffer` batches.

  Raises ValueError if a stream is empty or cannot be shared out among the hosts.
  """
  if sharding not in SHARDINGS:
    raise ValueError(f"config.data.sharding={sharding!r}: choose from {', '.join(SHARDINGS)}")
  index, hosts = host
  for name, stream in streams.items():
    _check(name, stream.source, stream.batch, hosts)
  own = (0, 1)  # of the images
  if sharding == "records":
    own, (index, hosts) = host, (0, 1)
    streams = {name: _own_records(name, stream, *own) for name, stream in streams.items()}
  # groups of every stream's share in the greatest number of equal parts that a batch has
  groups = math.gcd(*(stream.batch for stream in streams.values()))
  grouped = {
    name: _grouped(stream, (seed, _NUMBERS[name], own[0]), stream.batch // groups, own)
    for name, stream in streams.items()
  }
  blocks = grain.MapDataset.range(_ENDLESS).map(_HostBlocks(grouped, groups, hosts))
  if workers and not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain reads a flag of its own, also outside absl.app
  batches = grain.experimental.ElasticIterator(
    blocks,
    groups,
    grain.sharding.ShardOptions(shard_index=index, shard_count=hosts),
    read_options=_read_options(threads, buffer),
    multiprocessing_options=grain.MultiprocessingOptions(
      num_workers=workers, per_worker_buffer_size=buffer
    ),
  )
  return iter(batches.map(_ungroup))


class EvalBatches:
  """Batches {"image": [b,*size,3], "label": uint8 [b,*size], "valid_size": int32 [b,2],
  "index": int32 [b]} of this host, every record once; iterate as often as you like.

  batch: rows over all hosts, raised to a multiple of `devices`, those of all hosts. Images are
  reflected at right and bottom up to size, their labels filled with IGNORE; labels that are n times
  as large as their images stay so. The last batch is filled up with repeats that have index -1 and
  labels of IGNORE alone, so every host makes the same number of steps. An image larger than size
  raises ValueError when it is read.
  """

  def __init__(
    self,
    source: Source,
    *,
    batch: int,
    size: tuple[int, int],
    host: tuple[int, int] = (0, 1),
    devices: int = 1,
    threads: int = 2,
    buffer: int = 2,
  ):
    batch, own = share_of(source, batch, host, devices)
    self._source, self._size, self._share = source, size, own.stop - own.start
    self._read = _read_options(threads, buffer)
    rows = np.full(-(-len(source) // batch) * batch, -1, np.int32)
    rows[: len(source)] = np.arange(len(source))
    self._rows = rows.reshape(-1, batch)[:, own].reshape(-1)

  def __len__(self) -> int:
    return len(self._rows) // self._share

  def __iter__(self) -> Iterator[Record]:
    rows = grain.MapDataset.source(self._rows).map(_PaddedRecord(self._source, self._size))
    return iter(rows.batch(self._share).to_iter_dataset(self._read))


@functools.lru_cache(maxsize=16)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
  return np.random.default_rng([seed, epoch]).permutation(n)


@dataclass(frozen=True)
class EpochOrder:
  """Position in the endless stream -> row of the source; a fresh permutation every epoch."""

  n: int
  seed: int

  def __call__(self, position: int) -> int:
    epoch, place = divmod(position, self.n)
    return int(_permutation(self.n, self.seed, epoch)[place])


@dataclass(frozen=True)
class DrawnOrder:
  """Position in the endless stream -> row of the source, any with equal chance."""

  n: int
  seed: int

  def __call__(self, position: int) -> int:
    return int(np.random.default_rng([self.seed, position]).integers(self.n))


@dataclass(frozen=True)
class _Read:
  source: Source
  order: EpochOrder | DrawnOrder
  own: tuple[int, int]

  def __call__(self, position: int) -> Record:
    record = self.source[self.order(position)]
    index, hosts = self.own
    return {**record, "position": np.int32((position * hosts + index) % (1 << 31))}


@dataclass(frozen=True)
class _HostBlocks:
  """Element -> group of every stream, permuted so that each host gets consecutive groups.

  The iterator deals element e to host e mod hosts; of `groups` elements that make a global batch,
  host h is to have the h-th block.
  """

  streams: dict[str, grain.MapDataset]
  groups: int
  hosts: int

  def __call__(self, element: int) -> dict[str, Record]:
    step, place = divmod(element, self.groups)
    turn, host = divmod(place, self.hosts)
    group = step * self.groups + host * (self.groups // self.hosts) + turn
    return {name: stream[group] for name, stream in self.streams.items()}


@dataclass(frozen=True)
class _PaddedRecord:
  source: Source
  size: tuple[int, int]

  def __call__(self, row: int) -> Record:
    record = self.source[max(int(row), 0)]
    image, label = record["image"], record["label"]
    valid_size = image.shape[:2]
    if valid_size[0] > self.size[0] or valid_size[1] > self.size[1]:
      raise ValueError(
        f"image {self.source.ids[row]!r} has {valid_size[0]}x{valid_size[1]} pixels (height x "
        f"width), more than the evaluation size {self.size[0]}x{self.size[1]}; raise that size"
      )
    finer = label.shape[0] // valid_size[0]  # an original may score a shrunken image at full size
    image = geometry.reflect_to(image, self.size)
    label = geometry.fill_to(label, (finer * self.size[0], finer * self.size[1]), IGNORE)
    if row < 0:
      label = np.full_like(label, IGNORE)
    valid_size = np.asarray(valid_size, np.int32)
    found = {"image": image, "label": label, "valid_size": valid_size, "index": np.int32(row)}
    return {**record, **found}


def _own_records(name: str, stream: Stream, index: int, hosts: int) -> Stream:
  """The stream of one host's images."""
  if len(stream.source) < hosts:
    raise ValueError(
      f"the {name} stream has {len(stream.source)} images for {hosts} hosts: use "
      "config.data.sharding='batch'"
    )
  rows = range(index, len(stream.source), hosts)
  return stream._replace(source=Subset(stream.source, rows), batch=stream.batch // hosts)


def _grouped(
  stream: Stream, seed: tuple[int, ...], group: int, own: tuple[int, int]
) -> grain.MapDataset:
  """Groups of consecutive records of the endless shuffled stream.

  own: (index, count) of those among whom the records are shared out.
  """
  # Hashed: seeds 0 and 1, or two streams of one seed, must not share permutations.
  order, draws = (int(s) for s in np.random.SeedSequence(seed).generate_state(2))
  ordered = DrawnOrder if stream.replacement else EpochOrder
  return (
    grain.MapDataset.range(_ENDLESS * group)
    .map(_Read(stream.source, ordered(len(stream.source), order), own))
    .random_map(stream.transform, seed=draws)
    .batch(group)
  )


def _read_options(threads: int, buffer: int) -> grain.ReadOptions:
  # grain's default would hold 500 batches
  return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(buffer, threads))


def _ungroup(batch: dict[str, Record]) -> dict[str, Record]:
  """[groups, rows, ...] -> [groups * rows, ...]."""
  flat = lambda array: array.reshape(-1, *array.shape[2:])
  return {name: {key: flat(array) for key, array in batch[name].items()} for name in sorted(batch)}


def _check(name: str, source: Source, batch: int, hosts: int) -> None:
  if not len(source):
    raise ValueError(f"the {name} stream has no image")
  if batch <= 0 or batch % hosts:
    raise ValueError(f"{name} batch of {batch} rows cannot be shared out among {hosts} hosts")
