"""What the network will see of the data, and how fast it is read.

    python -m semiseg_jax inspect --config=configs/toy_reco.py
    python -m semiseg_jax inspect --config=FILE --workdir=runs/mine --images=16 --workers

Prints sizes, class frequencies and images/s of every stream, and writes a page of samples to
OUT/inspect.png: as they leave the CPU, and after the method's augmentation with its pseudo-labels,
those of a trained network if --workdir names a run. Any value of the config can be changed as with
launch.py.
"""

import copy
import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from absl import app, flags, logging
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict
from PIL import Image
from rich.console import Console
from rich.table import Table

from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.commands.flags import define_config, define_path, parse_or_exit
from semiseg_jax.contract import Batch, Tree
from semiseg_jax.convert.checkpoint import trained_network
from semiseg_jax.evaluation.contact_sheet import Sample, Section, contact_sheet
from semiseg_jax.input.build import open_data
from semiseg_jax.input.counts import class_counts
from semiseg_jax.input.pipeline import Stream, train_batches
from semiseg_jax.input.sources import Dataset, Source, Transformed, Wrapped
from semiseg_jax.labels import IGNORE
from semiseg_jax.paths import local_path, user_path
from semiseg_jax.runtime.errors import naming
from semiseg_jax.runtime.mesh import make_mesh, shard_batch
from semiseg_jax.training.check import check
from semiseg_jax.training.setup import Run, build
from semiseg_jax.training.start import Start, compute_dtype
from semiseg_jax.training.step import state_spec
from semiseg_jax.transforms.geometry import Record

_SIZES = 4  # that are listed
_NAMES = {"labeled": "labelled", "unlabeled": "unlabelled", "domain": "second domain"}
Streams = Mapping[str, Stream]


class Numbered(Wrapped):
  """A source whose records also hold their row, which stays with them through the transforms."""

  def __getitem__(self, index: int) -> Record:
    return {**self.source[index], "row": np.int32(index)}


def inspect(
  config: ConfigDict,
  *,
  title: str,
  out: pathlib.Path,
  images: int = 8,
  seconds: float = 5.0,
  workers: bool = False,
  workdir: pathlib.Path | None = None,
) -> pathlib.Path:
  """Prints the tables and writes the page; returns its path.

  images: samples of each stream; seconds: of each measurement of speed; workers: measure worker
  processes too, as is done where the config has some. Raises what opening the data, reading it or
  loading the network of workdir raises.
  """
  console = Console(highlight=False, markup=False, soft_wrap=True)
  run, note = make_run(config, open_data(config), workdir)
  dataset, streams = run.dataset, run.streams
  batches = first_batches(config, streams, images)
  console.print(stream_table(streams, dataset, batches, config.evaluation.batch))
  for name, stream in streams.items():
    console.print(f"{_NAMES[name]}: {stream.transform}")
  if isinstance(dataset.val, Transformed):
    console.print(f"validation: {dataset.val.transform}")
  console.print(class_table(streams, dataset))
  console.print(speed_table(config, streams, seconds, workers or config.data.workers > 0))
  sections = stream_sections(streams, batches, images, hidden=not config.data.partial)
  sections += view_sections(run, batches, images, note)
  title = f"{dataset.info.name}, {title}"
  page = contact_sheet(title, sections, dataset.info.palette, dataset.info.class_names)
  path = out / "inspect.png"
  with naming(path):
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(page).save(path)
  console.print(f"samples are in {path}")
  return path


def make_run(config: ConfigDict, dataset: Dataset, workdir: pathlib.Path | None) -> tuple[Run, str]:
  """The run on one device, starting with the best network of workdir if given; what it shows.

  Raises ValueError if that network knows other classes.
  """
  if workdir:
    config = copy.deepcopy(config)
    config.model.init_from = None  # the weights are workdir's
  run = build(config, dataset, mesh=make_mesh(jax.devices()[:1]))
  if not workdir:
    note = "augmented by the method; networks are untrained"
    return run, note + ", so pseudo-labels mean nothing yet" * ("unlabeled" in run.streams)
  dtype = compute_dtype(config.model.dtype)
  variables, network, about = trained_network(
    workdir, config.model, dtype, dataset.info.class_names
  )
  note = f"augmented by the method; networks are the best of {workdir}, step {about['step']}"
  start = Start(variables, network, lambda seed: variables)
  return dataclasses.replace(run, start=start), note


def first_batches(config: ConfigDict, streams: Streams, images: int) -> list[Batch]:
  """The run's first batches, enough to show so many images of each stream; each has "row" too."""
  count = max(-(-images // stream.batch) for stream in streams.values())
  numbered = {
    name: stream._replace(source=Numbered(stream.source)) for name, stream in streams.items()
  }
  iterator = train_batches(numbered, seed=config.seed, threads=config.data.threads)
  batches = [next(iterator) for _ in range(count)]
  iterator.close()
  return batches


def stream_table(
  streams: Streams, dataset: Dataset, batches: list[Batch], evaluation_batch: int
) -> Table:
  """How many images, of which sizes; the share of pixels without a label in the crops."""
  table = Table("stream", "images", "with mask", "height x width", "batch", "no label")
  for name, stream in streams.items():
    labels = np.concatenate([batch[name]["label"].ravel() for batch in batches])
    ignored = f"{(labels == IGNORE).mean():.1%} of {len(batches) * stream.batch} crops"
    cells = _about(stream.source)
    table.add_row(_NAMES[name], *cells, str(stream.batch), ignored)
  table.add_row("validation", *_about(dataset.val), str(evaluation_batch), "-")
  return table


def class_table(streams: Streams, dataset: Dataset) -> Table:
  """Every class's share of the labelled pixels as stored, and the images that contain it.

  Classes that no labelled image contains are red. Sets without any mask are left out.
  """
  sources = {_NAMES[name]: stream.source for name, stream in streams.items()}
  sources["validation"] = dataset.val
  table, counts = Table("class"), {}
  for name, source in sources.items():
    if np.any(source.labeled):
      counts[name] = class_counts(source, dataset.info.num_classes, as_stored=True)
      table.add_column(name, justify="right")
      table.add_column("images", justify="right")
  for class_id, class_name in enumerate(dataset.info.class_names):
    cells = []
    for count in counts.values():
      pixels = count[:, class_id]
      cells += [f"{pixels.sum() / max(count.sum(), 1):.2%}", str((pixels > 0).sum())]
    absent = not counts["labelled"][:, class_id].any()
    table.add_row(f"{class_id} {class_name}", *cells, style="red" if absent else None)
  return table


def speed_table(config: ConfigDict, streams: Streams, seconds: float, workers: bool) -> Table:
  """Images/s of all streams together: as configured, with one thread, with worker processes."""
  data, images = config.data, sum(stream.batch for stream in streams.values())
  settings = [(data.threads, data.workers), (1, 0)]
  settings += [(data.threads, 1), (data.threads, 2)] if workers else []
  table = Table("reading", "images/s", "each thread", "ms a batch")
  for threads, processes in dict.fromkeys(settings):
    iterator = train_batches(
      streams, seed=config.seed, threads=threads, workers=processes, buffer=data.buffer
    )
    batch_seconds = time_batches(iterator, seconds)
    iterator.close()
    speed = images / batch_seconds
    each = f"{speed / (threads * max(processes, 1)):.1f}"
    name = f"{threads} thread" + "s" * (threads > 1)
    if processes:
      name = f"{processes} worker process{'es' * (processes > 1)} of {name}"
    if (threads, processes) == settings[0]:
      name += ", as configured"
    table.add_row(name, f"{speed:.1f}", each, f"{1000 * batch_seconds:.1f}")
  return table


def time_batches(iterator: Iterator[Batch], seconds: float) -> float:
  """Mean seconds of a batch over at least so many seconds, the first batch not counted."""
  next(iterator)
  count, start = 0, time.perf_counter()
  while not count or time.perf_counter() - start < seconds:
    next(iterator)
    count += 1
  return (time.perf_counter() - start) / count


def stream_sections(
  streams: Streams, batches: list[Batch], images: int, hidden: bool = True
) -> list[Section]:
  """The samples of each stream as they leave the CPU; hidden: labels of "unlabeled" are unused."""
  sections = []
  for name, stream in streams.items():
    rows = [
      row
      for part in (batch[name] for batch in batches)
      for row in zip(part["row"], part["image"], part["label"], strict=True)
    ]
    ids = stream.source.ids
    samples = [Sample(f"{ids[i]}", _levels(image), label) for i, image, label in rows[:images]]
    note = f"{len(stream.source)} images; {stream.transform}"
    if hidden and name == "unlabeled":
      note += "; labels, where there are any, are not used"
    sections.append(Section(f"{_NAMES[name]} stream, as it leaves the CPU", note, samples))
  return sections


def view_sections(run: Run, batches: list[Batch], images: int, note: str) -> list[Section]:
  """The same samples as the network sees them, made by the method."""
  state = run.initial_state(run.mesh)
  targets = jax.jit(
    jax.shard_map(
      lambda state, batch, key: labeled_images(run.method.targets(state, batch, key)),
      mesh=run.mesh,
      in_specs=(state_spec(run.method, state), P(DATA_AXIS), P()),
      out_specs=P(DATA_AXIS),
    )
  )
  shown: dict[str, list[Sample]] = {}
  for step, batch in enumerate(batches):
    batch = {name: {k: v for k, v in part.items() if k != "row"} for name, part in batch.items()}
    key = jax.random.fold_in(state.rng, step)
    for name, view in jax.device_get(targets(state, shard_batch(batch, run.mesh), key)).items():
      pairs = zip(_levels(view["image"]), view["label"], strict=True)
      shown.setdefault(name, []).extend(Sample("", *pair) for pair in pairs)
  return [
    Section(f"{_NAMES.get(name, name)}, as the network sees it", note, samples[:images])
    for name, samples in shown.items()
  ]


def labeled_images(views: Tree, name: str = "") -> dict[str, dict[str, jax.Array]]:
  """Every dict in views that holds an image and a label, by its path."""
  if not isinstance(views, Mapping):
    return {}
  found = {}
  if {"image", "label"} <= views.keys():
    found[name] = {"image": views["image"], "label": views["label"]}
  for key, part in views.items():
    found |= labeled_images(part, f"{name}/{key}".lstrip("/"))
  return found


def _levels(image: np.ndarray) -> np.ndarray:
  return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _about(source: Source) -> tuple[str, str, str]:
  sizes = [f"{height}x{width}" for height, width in source.sizes]
  more = f" and {len(sizes) - _SIZES} more" if len(sizes) > _SIZES else ""
  masks = int(np.sum(source.labeled))
  return str(len(source)), str(masks), ", ".join(sizes[:_SIZES]) + more


def main(argv: list[str]) -> int:
  define_config()
  define_path("out", "runs/inspect", "Where inspect.png is written.")
  flags.DEFINE_integer("images", 8, "Samples of each stream.", lower_bound=1)
  flags.DEFINE_float("seconds", 5.0, "Of each measurement of speed.", lower_bound=0.0)
  flags.DEFINE_bool("workers", False, "Measure 1 and 2 worker processes, too.")
  define_path("workdir", None, "A run whose best network makes the pseudo-labels.")
  flags.mark_flag_as_required("config")
  if {"--help", "-h"} & {*argv}:  # absl's own would be of the module that was started
    print(f"{__doc__}{flags.FLAGS.module_help(__name__)}")
    return 0
  app.run(_run, argv=["inspect", *argv], flags_parser=parse_or_exit)


def _run(argv: list[str]) -> int:
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments {argv[1:]}; flags begin with --")
  values = flags.FLAGS
  check(values.config)
  if not logging.level_debug():
    logging.set_verbosity(logging.WARNING)  # the libraries report every file they touch
  inspect(
    values.config,
    title=values["config"].config_filename,
    out=local_path(values.out),
    images=values.images,
    seconds=values.seconds,
    workers=values.workers,
    workdir=user_path(values.workdir) if values.workdir else None,
  )
  return 0
