"""What all configs share: where each starts from, and what experiments of one original have in
common. Every key and its meaning: semiseg_jax/training/sections.py."""

from typing import Any

from ml_collections import ConfigDict

from semiseg_jax import fields
from semiseg_jax.fields import nearest, require
from semiseg_jax.networks import NETWORKS, TRUNKS
from semiseg_jax.training.choices import choose
from semiseg_jax.training.sections import SECTIONS, Whole
from semiseg_jax.values import CountFrom0, check

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_DEFAULTS = {
  "data.labeled_transform": "scale_crop",
  "data.unlabeled_transform": "scale_crop",
  "data.domain.transform": "scale_crop",
  "model.trunk": "resnet101",
  "model": "deeplabv3p",
  "method": "reco",
  "optimizer.schedule": "poly",
  "optimizer": "sgd",
  "evaluation.transform": "whole",
  "rounds.labels.transform": "whole",
}


def base_config() -> ConfigDict:
  """The sections data, model, method, optimizer, training, evaluation, inference, rounds; filled in
  for ReCo."""
  config = ConfigDict(fields.section(Whole))
  for path, kind in SECTIONS.items():
    _section(config, path).update(fields.section(kind))
  for path in (*_DEFAULTS, "rounds.first", "rounds.second"):
    _section(config, path)
  for path, name in _DEFAULTS.items():
    choose(config, path, name)
  return config


def _section(config: ConfigDict, path: str) -> ConfigDict:
  """What stands at a path, empty if nothing does."""
  for name in path.split("."):
    if name not in config:
      config[name] = ConfigDict()
    config = config[name]
  return config


def carriers(model: str) -> list[str]:
  """The trunks that a network stands on, by name."""
  return [name for name, kind in TRUNKS.items() if issubclass(kind, NETWORKS[model].TRUNKS)]


def use_memory_bank(config: ConfigDict) -> None:
  """The method, its loaders' plain crops, and its optimiser: no Nesterov, a rate of every step."""
  choose(config, "method", "memory_bank")
  for stream in ("labeled_transform", "unlabeled_transform"):
    choose(config, f"data.{stream}", "memory_bank")
  config.optimizer.nesterov = False
  config.optimizer.schedule.steps_per_epoch = 1
  config.optimizer.schedule.floor = 0.0


def memory_bank_experiment(config: ConfigDict, args: ConfigDict, colors: str) -> ConfigDict:
  """Fills in what the original's experiments share: model, pretraining, optimiser, length, split.

  args: labels, split, pretraining (COCO|imagenet; "": as the model has it), model (v2|v3). colors:
  of config.model's normalization, the dataset whose mean is taken off.
  """
  require("model", args.model, ("v2", "v3"))
  pretraining = args.pretraining or ("imagenet" if args.model == "v3" else "COCO")
  require("pretraining", pretraining, ("COCO", "imagenet"))
  if args.model == "v3" and pretraining == "COCO":
    raise ValueError("model=v3 has no COCO weights: pretraining=imagenet")
  use_memory_bank(config)
  config.data.labeled = f"memory_bank/{args.labels}_{args.split}"
  config.model.normalization = f"{colors}_{'bgr' if pretraining == 'COCO' else 'rgb'}"
  config.model.reinit_classifier = True  # it takes what has the same size, and says nothing
  if args.model == "v3":
    choose(config, "model", "deeplabv3plus")
    choose(config, "model.trunk", "resnet50")
  else:
    choose(config, "model", f"deeplabv2_{pretraining.lower()}")
  config.optimizer.learning_rate = 2e-4
  config.training.update(steps=150_000, reload_best_after=30_000, refresh_batch_stats=1_000)
  config.evaluation.update(every=1_000, batch=1, ties_replace=False)
  return config


def c3_experiment(config: ConfigDict, method: str, *, epoch: int, epochs: int) -> ConfigDict:
  """Fills in what C3's experiments share: views, model, method, optimiser, length.

  method: c3 | supervised, the labelled images alone. epoch: its steps; there are `epochs` of them.
  """
  require("method", method, ("c3", "supervised"))
  choose(config, "data.labeled_transform", "c3")
  choose(config, "data.unlabeled_transform", "c3_unlabeled")
  choose(config, "evaluation.transform", "c3")
  config.data.labeled_batch = config.data.unlabeled_batch = 16  # 4 on each of 4 GPUs
  choose(config, "model", "deeplabv2_coco", freeze_bn="trunk")
  choose(config, "method", "c3", unlabeled_start=9 * epoch)
  if method == "supervised":
    config.method.update(unlabeled_start=None, contrast=None)
  choose(config, "optimizer.schedule", "poly", first=1, steps_per_epoch=1, floor=0.0)
  # the original lists the trunk's tensors several times, and each time they are moved
  groups = ((r"downsample", 0.1, None, 4), (r"^trunk\.layer", 0.1, None, 3), (r"^trunk", 0.1, None))
  choose(config, "optimizer", "adam", learning_rate=1.2e-4, groups=groups)
  config.data.replacement = True
  config.training.update(steps=epochs * epoch, stop_after=200 * epoch, checkpoint_every=1_000)
  config.evaluation.update(every=epoch, batch=4, monitor="miou_zero", ties_replace=False)
  return config


def parse(arg: str | None, **defaults: Any) -> ConfigDict:
  """The text behind a config file's colon, "labels=20,mixing=cutmix", over typed defaults.

  The command line takes batch=N off it beforehand (`training.batch.scale_batch`).
  Raises ValueError for an unknown key (naming the nearest) or a value of another type.
  """
  values = ConfigDict(defaults)
  for pair in filter(None, (arg or "").split(",")):
    key, _, text = pair.partition("=")
    if key not in defaults:
      raise ValueError(f"config argument {pair!r}: unknown key; {nearest(key, defaults)}")
    kind = type(defaults[key])
    try:
      values[key] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
      raise ValueError(f"config argument {pair!r}: {key} takes {_KINDS[kind]}") from None
    if kind is int:  # a number of images, or a seed
      check(key, values[key], CountFrom0)
  return values


def choose_labels(config: ConfigDict, args: ConfigDict) -> None:
  """Applies labels (0 = all images), split (the seed of the labelled set and the run), partial."""
  config.seed = args.split
  every = args.partial or not args.labels  # sparse labels are of all images
  config.data.labeled = "all" if every else f"reco/{args.labels}_{args.split}"
  config.data.partial = args.partial or None


def reco_experiment(
  config: ConfigDict, arg: str | None, *, scale_range: tuple[float, float], labels: int
) -> ConfigDict:
  """Fills in the method and the labelled set of one of the original's experiments.

  Arguments: method=supervised|mean_teacher|reco, base=semi|sup (what ReCo stands on), mixing,
  labels (0 = all images), split (the seed of the labelled set, and of the run),
  partial=p0|p1|p5|p25, model=deeplabv3p|deeplabv2.
  """
  args = parse(
    arg, method="reco", base="semi", mixing="classmix", labels=labels, split=0, partial="",
    model="deeplabv3p",
  )  # fmt: skip
  require("base", args.base, ("semi", "sup"))
  require("method", args.method, ("supervised", "mean_teacher", "reco"))
  if args.method == "supervised":
    choose(config, "method", "supervised")
  else:
    values = {"scale_range": scale_range, "partial": bool(args.partial)}
    mixing = args.mixing if args.base == "semi" else None
    choose(config, "method", args.method, **values, mixing=mixing)
  if args.method == "supervised" or (args.method == "reco" and args.base == "sup"):
    config.data.labeled_batch *= 2  # as the originals do on labelled images alone
  choose_labels(config, args)
  config.data.labeled_transform.scale_range = scale_range
  choose(config, "model", args.model)
  return config
