"""Self-training in rounds: train, label the unlabelled images, select, train on (DST-CBC, DMT).

Every training stage is an ordinary run in a folder of its own, which starts from the network of an
earlier one; what was done is not done again, so that a run that was killed anywhere goes on there.

workdir/round_0/    the supervised run            workdir/best/         the outcome, to be used
workdir/round_1/    the first on pseudo-labels    workdir/summary.json  scores and shares of labels
workdir/round_1_labels/  those (input/pseudo_labels.py)   pictures/     the same, drawn
"""

import copy
import math
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from semiseg_jax import fields
from semiseg_jax.buckets import is_bucket
from semiseg_jax.convert.checkpoint import trained_network
from semiseg_jax.files import read_json, write_json
from semiseg_jax.input.build import open_data, train_streams
from semiseg_jax.input.identity import identity
from semiseg_jax.input.pseudo_labels import PseudoLabels
from semiseg_jax.input.sources import Dataset, Source
from semiseg_jax.paths import local_path, user_path
from semiseg_jax.runtime import processes
from semiseg_jax.runtime.lock import held
from semiseg_jax.runtime.report import jsonable
from semiseg_jax.runtime.rounds_report import report
from semiseg_jax.runtime.signals import ends_with
from semiseg_jax.runtime.workdir import compare, record
from semiseg_jax.training import loop
from semiseg_jax.training.check import check as check_config
from semiseg_jax.training.evaluator import score_saved
from semiseg_jax.training.labelling import Labelling, export_labels, label_images
from semiseg_jax.training.selection import monitored
from semiseg_jax.training.setup import build
from semiseg_jax.training.start import compute_dtype
from semiseg_jax.transforms import make_eval_transform

Results = dict[str, dict[str, Any]]  # result.json of the stages that are done


class Stage(NamedTuple):
  """One training run.

  name: its folder. starts_from, labeled_by: earlier stages, of which the best network is taken, to
  start with and to label the unlabelled images; () in the supervised round. ratio: the share of
  each class's pixels that is labelled. network: 0, or 1 for the second of two.
  """

  name: str
  round: int
  starts_from: tuple[str, ...] = ()
  labeled_by: tuple[str, ...] = ()
  ratio: float = 0.0
  network: int = 0


def stages(config: ConfigDict) -> list[Stage]:
  """What config.rounds asks for, in the order in which it is done.

  One network goes on from the best of all before, and labels for itself; of two each goes on from
  its own last one and learns from the other's labels.
  """
  rounds = config.rounds
  pair = bool(rounds.second)
  names = [[f"round_{i}{'ab'[n] if pair else ''}" for n in range(1 + pair)]
           for i in range(rounds.count + 1)]  # fmt: skip
  made = [Stage(name, 0, network=n) for n, name in enumerate(names[0])]
  ratio = rounds.ratio
  for i in range(1, rounds.count + 1):
    for n, name in enumerate(names[i]):
      before = tuple(own[0] for own in names[:i])
      starts, labels = ((names[i - 1][n],), (names[i - 1][1 - n],)) if pair else (before, before)
      made.append(Stage(name, i, starts, labels, ratio, n))
    ratio += rounds.increment  # added up in floating point, as the original does
  return made


def outcome(config: ConfigDict, results: Results) -> str:
  """The stage whose best network is that of the whole run so far."""
  if not config.rounds.second:
    return best_of(results, tuple(results))
  last = max(result["round"] for result in results.values())
  return best_of(results, tuple(name for name in results if results[name]["round"] == last))


def best_of(results: Results, names: Sequence[str]) -> str:
  """The first of the stages with the best score; NaN, null in JSON, is the worst."""

  def score(name: str) -> float:
    value = results[name]["best"]["score"]
    return -math.inf if value is None or math.isnan(value) else value

  return max(names, key=score)


def train_in_rounds(
  config: ConfigDict, workdir: pathlib.Path, exports: bool = False
) -> dict[str, Any]:
  """Does all stages, going on where an earlier start stopped; returns what result.json holds.

  Of the pseudo-labels those of the last round stay; exports: they are written as PNGs, too, beside
  the images of a folder, else into workdir/pseudo_labels. The result's status is "interrupted"
  after a signal, as in `loop.train`; while images are labelled it ends the process with the same
  exit code. Raises ValueError for rounds that don't fit together.
  """
  check(config)
  check_workdir(workdir)
  dataset = open_data(config)
  data = identity(dataset.info, {"training": dataset.train, "validation": dataset.val})
  with held(workdir):
    compare(workdir, config, data)
    record(workdir, config, data)
    return _do_stages(config, dataset, workdir, exports)


def _do_stages(
  config: ConfigDict, dataset: Dataset, workdir: pathlib.Path, exports: bool
) -> dict[str, Any]:
  results = read_summary(workdir)
  for stage in stages(config):
    if stage.name in results:
      continue
    own = stage_config(config, stage, workdir, results)
    own_dataset = open_data(own)
    labels = label(own, own_dataset, stage, workdir, results) if own.data.pseudo_labels else {}
    where, result = trained(own, own_dataset, stage, workdir)
    if result["status"] == "interrupted":
      return result
    about = {"round": stage.round, "network_number": stage.network, "folder": where}
    results[stage.name] = {**result, **about, "labels": labels}
    publish(workdir / results[outcome(config, results)]["folder"], workdir)
    if jax.process_index() == 0:
      write_json(workdir / "summary.json", jsonable(results))
      if stage.round < config.rounds.count:  # they take gigabytes, and were learnt from
        shutil.rmtree(labels_of(workdir, stage), ignore_errors=True)
  best = outcome(config, results)
  publish(workdir / results[best]["folder"], workdir)  # again, for a kill just there
  result = {"stage": best, **{key: results[best][key] for key in ("status", "step", "best")}}
  if jax.process_index() == 0:
    write_json(workdir / "result.json", result)
    report(workdir, results, dataset.info)
    if exports and not config.rounds.online:
      export(config, dataset, labels_of(workdir, stage), workdir)
  return result


def labels_of(workdir: pathlib.Path, stage: Stage) -> pathlib.Path:
  """Where the pseudo-labels are that a stage learns from."""
  return workdir / f"{stage.name}_labels"


def export(
  config: ConfigDict, dataset: Dataset, labels: pathlib.Path, workdir: pathlib.Path
) -> None:
  """Writes pseudo-labels as PNGs for people."""
  source = unlabeled_images(config, dataset)
  root = workdir
  if config.data.name == "folder" and not is_bucket(config.data.root):
    root = user_path(config.data.root)
  export_labels(PseudoLabels(source, labels), root / "pseudo_labels", dataset.info.palette)
  print(f"the last pseudo-labels of {len(source)} images are in {root / 'pseudo_labels'}")


def unlabeled_images(config: ConfigDict, dataset: Dataset) -> Source:
  """The images that are to be labelled, with what is known of them."""
  plain = copy.deepcopy(config)
  plain.data.pseudo_labels, plain.rounds.count = None, 0
  return train_streams(plain, dataset, ("labeled", "unlabeled"))["unlabeled"].source


def read_summary(workdir: pathlib.Path) -> Results:
  """What is known of the stages that are done, on every process."""
  path = workdir / "summary.json"
  if not path.exists():
    return {}
  return read_json(path, "move it away, so that the rounds are gone through again")


def check_workdir(workdir: pathlib.Path) -> None:
  """ValueError for one in a bucket."""
  if is_bucket(workdir):
    raise ValueError(
      f"--workdir={workdir}: pseudo-labels are written into files, so a run in rounds needs a "
      "folder on this machine or a mounted bucket (docs/scaling.md)"
    )


def check(config: ConfigDict) -> None:
  """ValueError, before anything is trained, for what can be known of all stages."""
  rounds = config.rounds
  networks = 1 + bool(rounds.second)
  if rounds.start and len(rounds.start.split(",")) != networks:
    raise ValueError(
      f"config.rounds.start={rounds.start!r} should name {networks} working directories, one for "
      "each network"
    )
  for start in filter(None, (rounds.start or "").split(",")):
    local_path(start)
  if "unlabeled" not in check_config(config).streams:
    raise ValueError(
      f"config.rounds.count={rounds.count}, but config.method learns from labelled images alone"
    )
  for network in range(networks):
    check_config(stage_config(config, Stage("", 0, network=network), pathlib.Path(), {}))


def stage_config(
  config: ConfigDict, stage: Stage, workdir: pathlib.Path, results: Results
) -> ConfigDict:
  """The config of one stage's own run."""
  own = copy.deepcopy(config)
  if stage.network:
    own.update(config.rounds.second.to_dict())
  if not stage.round:
    own.update(config.rounds.first.to_dict())
    return own
  # round 0 is the run that it would be alone; the others draw numbers of their own
  own.seed = int(np.random.SeedSequence([own.seed, stage.round]).generate_state(1)[0] >> 1)
  start = results[best_of(results, stage.starts_from)]["folder"]
  own.model.init_from, own.model.which = str(workdir / start), None
  if not own.rounds.online:
    own.data.pseudo_labels = str(labels_of(workdir, stage))
  return own


def trained(
  config: ConfigDict, dataset: Dataset, stage: Stage, workdir: pathlib.Path
) -> tuple[str, dict[str, Any]]:
  """Where in workdir, or else in the file system, the stage's best network is, and the result of
  its run. ValueError where none of its scores was a number."""
  if config.rounds.start and not stage.round:
    start = local_path(config.rounds.start.split(",")[stage.network]).absolute()
    return str(start), scored(config, dataset, start)
  result = loop.train(build(config, dataset), workdir / stage.name)
  if result["status"] == "finished" and result["best"]["step"] is None:
    raise ValueError(
      f"{workdir / stage.name} has no best network to go on with: its "
      f"{config.evaluation.monitor} (config.evaluation.monitor) was never a number"
    )
  return stage.name, result


def scored(config: ConfigDict, dataset: Dataset, start: pathlib.Path) -> dict[str, Any]:
  """What the result of a run would say of a network that is there already."""
  found, about = score_saved(start, config, dataset)
  value = monitored(config.evaluation.monitor, found.scores, found.loss)
  return {
    "status": "finished",
    "step": about["step"],
    "best": {"step": about["step"], "score": value},
    "last": found.scores.as_dict(dataset.info.class_names),
  }


def label(
  config: ConfigDict, dataset: Dataset, stage: Stage, workdir: pathlib.Path, results: Results
) -> Mapping[str, Any]:
  """The stage's pseudo-labels on disk, made unless they are there; what labels.json says."""
  by = best_of(results, stage.labeled_by)
  names = dataset.info.class_names
  variables, network, about = trained_network(
    workdir / results[by]["folder"],
    dtype=compute_dtype(config.model.dtype),
    class_names=names,
  )
  with ends_with(processes.RETRY):
    return label_images(
      pathlib.Path(config.data.pseudo_labels),
      unlabeled_images(config, dataset),
      variables,
      network,
      names,
      make_labelling(config),
      make_eval_transform(config.rounds.labels.transform),
      stage.ratio,
      {"stage": by, "step": about["step"]},
    )


def make_labelling(config: ConfigDict) -> Labelling:
  """How images are labelled, from config.rounds.labels."""
  values = {key: value for key, value in config.rounds.labels.items() if key != "transform"}
  return fields.make(Labelling, "config.rounds.labels", "labels", values)


def publish(source: pathlib.Path, workdir: pathlib.Path) -> None:
  """Makes the best network of a stage's folder that of the whole run."""
  if jax.process_index() == 0:
    part, best = workdir / "best.part", workdir / "best"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source / "best", part)
    shutil.rmtree(best, ignore_errors=True)
    part.rename(best)
  processes.barrier("published")
