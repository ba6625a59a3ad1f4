"""Every field of a config, with its default and what it means; each config starts from here."""

from typing import Any

from ml_collections import ConfigDict, config_dict

from semiseg_jax import fields
from semiseg_jax.evaluation.predictor import Inference
from semiseg_jax.fields import nearest, require
from semiseg_jax.networks import NETWORKS, TRUNKS
from semiseg_jax.training.choices import choose
from semiseg_jax.training.labelling import Labelling

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
  config = ConfigDict()
  config.seed = 0  # of the parameters, the data order and every random draw

  config.data = ConfigDict()
  config.data.name = config_dict.required_placeholder(str)  # a prepared dataset, or "folder"
  config.data.data_dir = config_dict.placeholder(str)  # of prepared sets; None: ~/semiseg_data
  config.data.variant = config_dict.placeholder(str)  # of the prepared set; None: its default
  config.data.root = config_dict.placeholder(str)  # of the folder dataset
  config.data.class_names = config_dict.placeholder(str)  # folder: "sky,road"; None: dataset.toml
  config.data.ignore_index = config_dict.placeholder(int)  # folder: None: dataset.toml, or 255
  config.data.labeled = "all"  # "reco/20_0" (count_seed), "1/8_0" (fraction_seed), a published
  # split such as "dst_cbc/30_0" (docs/splits.md), or a file of ids
  config.data.rule = "balanced"  # how "reco/..." chooses: balanced | sun
  config.data.min_classes = 1  # classes that an image must show to be chosen by "balanced"
  config.data.unlabeled = "rest"  # rest | all | a published split | a file of ids
  config.data.pseudo_labels = config_dict.placeholder(
    str
  )  # a folder of them, for unlabelled images
  # (training/labelling.py): rounds set it themselves
  config.data.extra_unlabeled = False  # add the set's images without labels (cityscapes)
  config.data.palette = config_dict.placeholder(str)  # folder: "4682b4,804080", as dataset.toml
  config.data.resize = config_dict.placeholder(int)  # shorter side of all images; None: native
  config.data.partial = config_dict.placeholder(str)  # sparse labels: p0 | p1 | p5 | p25
  config.data.crop = (321, 321)  # training crop, height and width
  config.data.labeled_transform = ConfigDict()  # `name` and the fields of that transform,
  config.data.unlabeled_transform = ConfigDict()  # see semiseg_jax/transforms
  config.data.labeled_batch = 10  # images of all devices together
  config.data.unlabeled_batch = 10
  config.data.domain = ConfigDict()  # a stream of labelled images from another domain
  config.data.domain.name = config_dict.placeholder(str)  # a prepared dataset; None: no such stream
  config.data.domain.variant = config_dict.placeholder(str)
  config.data.domain.batch = 2
  config.data.domain.transform = ConfigDict()
  config.data.replacement = False  # each place of a batch takes any image, and not each image once
  # an epoch
  config.data.sharding = "batch"  # of several hosts each reads: its share of every batch, of all
  # images | records: its own images alone, in an order of its own (docs/scaling.md)
  config.data.threads = 2  # that read and decode, per host or per worker process
  config.data.workers = 0  # worker processes per host; 0: threads alone
  config.data.buffer = 4  # batches read ahead

  config.model = ConfigDict()  # `name` of the network and its fields, see networks
  config.model.trunk = ConfigDict()  # `name` of the encoder and its fields
  config.model.init_from = config_dict.placeholder(str)  # .pth or .safetensors file, working
  # directory or "hf://ORG/REPO/FILE" (docs/weights.md); None: from scratch
  config.model.reinit_classifier = False  # where those weights are of another number of classes
  config.model.normalization = "auto"  # of the inputs: as init_from's weights want it, else
  # imagenet | coco | cityscapes_bgr | ...
  config.model.dtype = "auto"  # compute: float32 | bfloat16 | auto (bfloat16 on accelerators)
  config.model.sync_batch_norm = True  # batch statistics of all devices together
  config.model.remat = "none"  # what of the trunk the backward pass recomputes, for memory:
  # none | elementwise | blocks (docs/performance.md)

  config.method = ConfigDict()  # `name` and the fields of that method's class

  config.optimizer = ConfigDict()  # `name` and its fields, see semiseg_jax/training/optimizers.py
  config.optimizer.schedule = ConfigDict()  # the same of its rate, see semiseg_jax/schedules.py

  config.training = ConfigDict()
  config.training.steps = 40_000
  config.training.accumulate = 1  # batches per update
  config.training.reload_best_after = config_dict.placeholder(int)  # steps without a better score
  # after which it goes on from the best network; None: never
  config.training.stop_after = config_dict.placeholder(int)  # the same, after which the run ends
  config.training.refresh_batch_stats = 0  # passes that re-estimate the best one's statistics
  config.training.log_every = 50
  config.training.checkpoint_every = 1_000
  config.training.keep = 2  # newest checkpoints that are kept, beside the best

  config.evaluation = ConfigDict()
  config.evaluation.every = 200
  config.evaluation.ahead = 0  # steps before each multiple of `every`, and before the end, at which
  # it takes place (DST-CBC: 1)
  config.evaluation.network = config_dict.placeholder(str)  # which of them; None: as the method has
  config.evaluation.every_network = False  # log the others' scores, too
  config.evaluation.batch = 4
  config.evaluation.size = (513, 513)  # images are padded to it at the right and bottom
  config.evaluation.window = config_dict.FieldReference(None, field_type=tuple)  # seen through
  # windows of that height and width (semiseg_jax/evaluation/windows.py); None: whole
  config.evaluation.own_size = False  # or each keeps its own, and every size has its own program
  config.evaluation.transform = ConfigDict()  # what is done before padding, as in data
  config.evaluation.subset = config_dict.placeholder(str)  # "dst_cbc/valtiny"; None: every image
  config.evaluation.monitor = "miou_present"  # the score that chooses the best network:
  # miou_present | miou | miou_zero (docs/fidelity.md) | accuracy | loss
  config.evaluation.ties_replace = True  # the best network, by one with the same score
  config.evaluation.panels = 4  # validation images drawn at each evaluation
  # The rest is for --mode=evaluate alone.
  config.evaluation.decide = "max"  # how logits become masks: max | threshold | rankdice, or that
  # with fields, "rankdice(solver='rma',metric='iou')": semiseg_jax/rankdice/settings.py
  config.evaluation.temperature = 1.0  # divides the logits beforehand
  config.evaluation.threshold = 0.5  # from which probability on decide="threshold" takes a pixel
  config.evaluation.classes = config_dict.placeholder(str)  # those that means are taken over, by
  # name or id: "road,sky" or "1-20"; None: all
  config.evaluation.protocol = "paper"  # of means over images, pixels without a label: paper
  # (wrong where a mask is on them) | standard (left out)
  config.evaluation.iou_of_sums = False  # IoU of images with the areas' sum for their union, as the
  # RankDice fork has it under its binary losses: half of Dice
  config.evaluation.boundary = 0.02  # how near an outline is, as a share of the diagonal; 0: leave
  # boundary IoU out

  config.inference = ConfigDict(fields.section(Inference))  # how --mode=predict sees pictures, see
  # evaluation/predictor.py: mode whole | sliding | multiscale

  config.rounds = ConfigDict()  # self-training in rounds (semiseg_jax/training/rounds.py)
  config.rounds.count = 0  # behind the supervised one; 0: an ordinary run
  config.rounds.start = config_dict.placeholder(str)  # a working directory whose network stands for
  # the supervised round ("A,B" of two networks)
  config.rounds.ratio = 0.2  # share of each class's pixels that is labelled in the first round
  config.rounds.increment = 0.2  # of that share from round to round
  config.rounds.first = ConfigDict()  # sections of the config as the supervised round has them
  config.rounds.second = ConfigDict()  # and a second network, which the first teaches and learns
  # from; empty: one network
  config.rounds.online = False  # no labels are written: the method makes its own at every step
  config.rounds.labels = ConfigDict(fields.section(Labelling))  # see training/labelling.py
  config.rounds.labels.transform = ConfigDict()  # as evaluation.transform
  for path, name in _DEFAULTS.items():
    choose(config, path, name)
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
      raise ValueError(f"config argument {pair!r}: {key} takes a {kind.__name__}") from None
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
