"""What `launch.py` does, as functions: train, evaluate, predict, plan."""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict

from semiseg_jax.buckets import is_bucket, named, reached
from semiseg_jax.convert.checkpoint import check_segments, trained_network
from semiseg_jax.evaluation.predict import Files, predict_pictures
from semiseg_jax.evaluation.predictor import read_inference
from semiseg_jax.evaluation.summary import classes_of_interest, summarize
from semiseg_jax.input.build import open_data
from semiseg_jax.input.sources import Dataset
from semiseg_jax.paths import local_path, user_path
from semiseg_jax.planning.plan import Plan, describe, make_plan
from semiseg_jax.runtime import processes
from semiseg_jax.runtime.compile_cache import keep_programs
from semiseg_jax.runtime.errors import INTERRUPTED, in_one_line, naming
from semiseg_jax.runtime.report import print_scores
from semiseg_jax.runtime.signals import second_interrupt_ends
from semiseg_jax.runtime.survey_report import Told, as_dict, print_survey, write_survey
from semiseg_jax.runtime.workdir import kept
from semiseg_jax.training import loop
from semiseg_jax.training.check import check, check_values
from semiseg_jax.training.evaluator import rule_of, supervised_loss, survey_saved
from semiseg_jax.training.rounds import check as check_rounds
from semiseg_jax.training.rounds import check_workdir, train_in_rounds
from semiseg_jax.training.setup import build
from semiseg_jax.training.start import compute_dtype


def launch(values: flags.FlagValues, ensure: Callable, known: Callable) -> int:
  """Does what the flags of launch.py say; the exit code.

  ensure(name, variant, data_dir): prepares a dataset; known(name, variant, crop): what is known of
  one without its files, see `data/`.
  """
  if not logging.level_debug():
    logging.set_verbosity(logging.WARNING)  # the libraries report every file they touch
  config = values.config
  if config is None and not (values.mode == "predict" and values.workdir):
    raise app.UsageError("--config is missing (only --mode=predict with --workdir needs none)")
  file = "" if config is None else values["config"].config_filename.partition(":")[0]
  workdir = values.workdir or f"runs/{pathlib.Path(file).stem}"
  training = values.mode == "train"
  with second_interrupt_ends(functools.partial(_on_interrupt, workdir if training else None)):
    return _launch(values, config, workdir, ensure, known)


def _on_interrupt(trained: str | None, count: int) -> str:
  """What is said at the first and the second Ctrl-C; trained: the working directory of training."""
  if count == 1:
    return "stopping once a step or compilation that runs is done; Ctrl-C again ends at once"
  return f"launch.py: ended at once{f'; {kept(user_path(trained))}' if trained else ''}"


def _launch(
  values: flags.FlagValues,
  config: ConfigDict | None,
  workdir: str,
  ensure: Callable,
  known: Callable,
) -> int:
  """The exit code of what the flags say, errors in one line."""
  try:
    if config is not None:
      check_values(config)
    workdir = user_path(workdir)
    if values.mode == "predict":
      keys = ("format", "overlays", "confidence", "probabilities")
      files = Files(**{key: getattr(values, key) for key in keys})
      options = {"inference": values.inference, "files": files, "skip_bad": values.skip_bad}
      with naming(values.out or workdir), named(workdir):
        keep_programs(config.training.compile_cache if config is not None else "auto")
        predict(config, workdir, values.images, values.out, **options)
    elif values.mode == "plan":
      datasets = (known(d.name, d.variant, config.data.crop) for d in domains(config))
      options = {"search": values.search, "full_effort": values.full_effort}
      plan(config, values.topology, *datasets, **options)
    else:
      address = (values.coordinator, values.num_processes, values.process_id)
      if values.mode == "train":
        (check_rounds if config.rounds.count else check)(config)
        if config.rounds.count:
          check_workdir(workdir)
      together = processes.joined(*address, timeout=values.peer_timeout)
      with naming(workdir), named(workdir), together:
        reached(workdir)
        keep_programs(config.training.compile_cache)
        for domain in domains(config):
          if domain.name and domain.name != "folder":
            ensure(domain.name, domain.variant, config.data.data_dir)
        if values.mode == "train":
          result = train(config, workdir, values.export_labels)
        else:
          result = evaluate(config, workdir, values.split)
      return processes.RETRY if result.get("status") == "interrupted" else 0
  except (ValueError, OSError, ImportError, loop.DivergedError) as error:
    if logging.level_debug():
      raise
    print(f"launch.py: {in_one_line(error)}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("launch.py: interrupted", file=sys.stderr)
    return INTERRUPTED
  return 0


def domains(config: ConfigDict) -> tuple[ConfigDict, ConfigDict]:
  """What says where the images come from, and those of a second dataset."""
  return config.data, config.data.domain


def train(config: ConfigDict, workdir: pathlib.Path, export_labels: bool = False) -> dict[str, Any]:
  """Trains, or goes on; returns what result.json holds.

  export_labels: see `train_in_rounds`; ValueError for a run without rounds.
  """
  processes.check_agreement(config)
  if config.rounds.count:
    return train_in_rounds(config, workdir, export_labels)
  if export_labels:
    raise ValueError("--export_labels is for runs in rounds: config.rounds.count is 0 here")
  return loop.train(build(config, open_data(config)), workdir)


def evaluate(config: ConfigDict, workdir: pathlib.Path, split: str = "val") -> dict[str, Any]:
  """Scores the best network of workdir on a set; writes evaluation.json and what goes with it.

  split: see `open_data`. The files of another split or rule than val and max have their names in
  theirs. Raises ValueError if the network's classes are not the dataset's.
  """
  processes.check_agreement(config)
  wanted, rule = config.evaluation, rule_of(config)
  dataset = open_data(config, split)
  info = dataset.info
  classes = classes_of_interest(wanted.classes, info.class_names)
  found, seconds, about = survey_saved(workdir, config, dataset, rule)
  summary = summarize(found, classes, wanted.protocol, wanted.iou_of_sums)
  decided = {**dataclasses.asdict(rule), "protocol": wanted.protocol}
  told = Told(found, summary, decided, split, info, dataset.val.ids)
  result = {"step": about["step"], "network": about["network"]}
  if jax.process_index() == 0:
    loss = supervised_loss(config)
    heading = (
      f"{about['model']['name']}, {loss}, decided by {rule.name} at temperature "
      f"{rule.temperature:g}, on {split}"
    )
    print_scores(about["step"], found.scores, info.class_names, seconds)
    print_survey(told, heading, "test_loss" if loss == "ce" else "cross_entropy")
    names = [split] * (split != "val") + [rule.name] * (rule.name != "max")
    write_survey(workdir, "_".join(["evaluation", *names]), told, result)
  return {**result, **as_dict(told)}


def plan(
  config: ConfigDict,
  topology: str | None,
  dataset: Dataset | None,
  domain: Dataset | None,
  **options: bool,
) -> Plan:
  """Prints what a step will take on TPUs or GPUs; needs neither them nor the data.

  dataset, domain: stand in for those of the config, which are opened where None. options: search
  and full_effort of `make_plan`.
  """
  if not topology:
    raise ValueError(
      "--mode=plan needs --topology=NAME, TPUs such as v5e:2x4 or GPUs such as h100:8"
    )
  made = make_plan(config, dataset or open_data(config), topology, domain=domain, **options)
  print(describe(made))
  return made


def predict(
  config: ConfigDict | None,
  workdir: pathlib.Path,
  images: str | None,
  out: str | None,
  inference: str = "",
  **options: Any,
) -> pathlib.Path:
  """Writes a palette PNG for every picture of `images`; needs no dataset, only workdir/best.

  config: None, or what must describe the network there. inference: see `read_inference`.
  options: files and skip_bad of `predict_pictures`.
  """
  if jax.process_count() > 1:
    raise ValueError("--mode=predict runs in one process: start it on a single host")
  if not images:
    raise ValueError("--mode=predict needs --images=DIR, the folder of pictures")
  local_path(images)
  if not out and is_bucket(workdir):
    raise ValueError("--mode=predict with a --workdir in a bucket needs --out=DIR, a folder here")
  out = local_path(out) if out else workdir / "predictions"
  settings = read_inference(inference, config and config.inference, "--inference")
  model = config and config.model
  dtype = compute_dtype(model.dtype if model else "auto")
  variables, forward, about = trained_network(workdir, model, dtype)
  check_segments(about["model"], workdir)
  done = predict_pictures(
    forward,
    variables,
    images=images,
    out=out,
    palette=np.asarray(about["palette"], np.uint8),
    class_names=about["class_names"],
    settings=settings,
    **options,
  )
  left_out = f", {len(done.skipped)} damaged left out" if done.skipped else ""
  print(f"{len(done.written)} predictions are in {out}{left_out}")
  return out
