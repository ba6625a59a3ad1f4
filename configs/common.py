"""Every field of a config, with its default and what it means; each config starts from here."""

import difflib
from typing import Any

from ml_collections import ConfigDict, config_dict


def base_config() -> ConfigDict:
  """The sections data, model, method, optimizer, training, evaluation; filled in for ReCo."""
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
  config.data.extra_unlabeled = False  # add the set's images without labels (cityscapes)
  config.data.palette = config_dict.placeholder(str)  # folder: "4682b4,804080", as dataset.toml
  config.data.resize = config_dict.placeholder(int)  # shorter side of all images; None: native
  config.data.partial = config_dict.placeholder(str)  # sparse labels: p0 | p1 | p5 | p25
  config.data.crop = (321, 321)  # training crop, height and width
  config.data.labeled_transform = scale_crop(1.0, 1.0)  # `name` and the fields of that transform,
  config.data.unlabeled_transform = scale_crop(1.0, 1.0)  # see semiseg_jax/input/transforms
  config.data.labeled_batch = 10  # images of all devices together
  config.data.unlabeled_batch = 10
  config.data.domain = ConfigDict()  # a stream of labelled images from another domain
  config.data.domain.name = config_dict.placeholder(str)  # a prepared dataset; None: no such stream
  config.data.domain.variant = config_dict.placeholder(str)
  config.data.domain.batch = 2
  config.data.domain.transform = scale_crop(1.0, 1.0)
  config.data.sharding = "batch"  # of several hosts each reads: its share of every batch, of all
  # images | records: every so-manieth image only, in an order of its own (docs/scaling.md)
  config.data.threads = 2  # that read and decode, per host or per worker process
  config.data.workers = 0  # worker processes per host; 0: threads alone
  config.data.buffer = 4  # batches read ahead

  config.model = ConfigDict()
  config.model.name = "deeplabv3p"  # deeplabv3p | deeplabv2; the memory bank's: deeplabv2_coco |
  # deeplabv2_imagenet | deeplabv3plus; torchvision's: deeplabv3
  config.model.backbone = "resnet101"  # resnet18 | resnet34 | resnet50 | resnet101 | resnet152
  config.model.init_from = config_dict.placeholder(str)  # .pth or .safetensors file, working
  # directory or "hf://ORG/REPO/FILE" (docs/weights.md); None: from scratch
  config.model.reinit_classifier = False  # where those weights are of another number of classes
  config.model.width = 64  # channels of the backbone's stem; smaller for toys
  config.model.decoder_dim = 256  # channels of ASPP and heads
  config.model.output_stride = 16  # deeplabv3p, deeplabv3: 16 | 8; deeplabv2: 8
  config.model.embedding_dim = 256  # of the representation head, where the method has one
  config.model.head_dim = 256  # of the projection head and all behind it, where it has them
  config.model.classifier_branches = config_dict.placeholder(int)  # DeepLabV2: of 4; None: as coded
  config.model.aux_head = False  # deeplabv3: the second classifier that published weights have
  config.model.normalization = "auto"  # of the inputs: as init_from's weights want it, else
  # imagenet | coco | cityscapes_bgr | ...
  config.model.dtype = "auto"  # compute: float32 | bfloat16 | auto (bfloat16 on accelerators)
  config.model.sync_batch_norm = True  # batch statistics of all devices together
  config.model.remat = "none"  # what of the backbone the backward pass recomputes, for memory:
  # none | elementwise | blocks (docs/performance.md)

  config.method = ConfigDict()  # `name` and exactly the fields of that method's class

  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 2.5e-3
  config.optimizer.momentum = 0.9
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 5e-4
  config.optimizer.steps_per_epoch = 200  # the poly schedule steps once per epoch
  config.optimizer.power = 0.9
  config.optimizer.floor = 1e-6  # the learning rate never falls below

  config.training = ConfigDict()
  config.training.steps = 40_000
  config.training.accumulate = 1  # batches per update
  config.training.separate_passes = False  # one pass's backward before the next: less memory
  config.training.reload_best_after = config_dict.placeholder(int)  # steps without a better score
  config.training.refresh_batch_stats = 0  # passes that re-estimate the best one's statistics
  config.training.log_every = 50
  config.training.checkpoint_every = 1_000
  config.training.keep = 2  # newest checkpoints that are kept, beside the best

  config.evaluation = ConfigDict()
  config.evaluation.every = 200
  config.evaluation.network = "teacher"  # teacher | student; methods without a teacher: student
  config.evaluation.batch = 4
  config.evaluation.size = (513, 513)  # images are padded to it at the right and bottom
  config.evaluation.transform = ConfigDict({"name": "whole"})  # what is done before padding
  config.evaluation.subset = config_dict.placeholder(str)  # "dst_cbc/valtiny"; None: every image
  config.evaluation.ties_replace = True  # the best network, by one with the same score
  config.evaluation.panels = 4  # validation images drawn at each evaluation
  return config


def scale_crop(low: float, high: float) -> ConfigDict:
  """ReCo's geometry: a random scale, reflected margins, a crop."""
  return ConfigDict({"name": "scale_crop", "scale_range": (low, high)})


def supervised() -> ConfigDict:
  """Training on the labelled images alone."""
  return ConfigDict({"name": "supervised"})


def mean_teacher(
  mixing: str, scale_range: tuple[float, float], partial: bool = False
) -> ConfigDict:
  """The EMA teacher with cutout, cutmix or classmix, as ReCo's baselines use it."""
  return ConfigDict(
    {
      "name": "mean_teacher",
      "mixing": mixing,
      "strong_threshold": 0.97,
      "scale_range": tuple(scale_range),
      "ema_decay": 0.99,
      "partial": partial,
      "eight_bit_passes": True,
      "scope": "global",
    }
  )


def reco(mixing: str | None, scale_range: tuple[float, float], partial: bool = False) -> ConfigDict:
  """ReCo on top of the mean teacher, or of the supervised method where mixing is None."""
  method = mean_teacher("classmix", scale_range, partial)
  method.update(
    {
      "name": "reco",
      "weak_threshold": 0.7,
      "temperature": 0.5,
      "num_queries": 256,
      "num_negatives": 512,
    }
  )
  method.mixing = config_dict.placeholder(str)
  method.mixing = mixing
  return method


def memory_bank() -> ConfigDict:
  """The class-wise memory bank, as its script trains a DeepLabV2 on Cityscapes."""
  return ConfigDict(
    {
      "name": "memory_bank",
      "ramp_steps": 2000,
      "bank_lead": 1000,
      "memory_per_class": 256,
      "quota_factor": 1.0,
      "threshold": 0.95,
      "entropy_weight": 0.01,
      "contrast_weight": 0.1,
      "class_balancing": True,
      "background": -1,
      "labeled_mix": 0.2,
      "use_teacher": True,
      "warmup_rate": 10.0,
      "memory_weights": "code",
      "rank_order": "ascending",
      "entropy_broadcast": False,
      "isotropic_blur": False,
      "eight_bit_jitter": False,
      "domain_schedule": "alternate",
      "alternate": False,
    }
  )


def use_memory_bank(config: ConfigDict) -> None:
  """The method, its loaders' plain crops, and its optimiser: no Nesterov, a rate of every step."""
  config.method = memory_bank()
  for transform in ("labeled_transform", "unlabeled_transform"):
    config.data[transform] = ConfigDict({"name": "memory_bank", "halve": False})
  config.optimizer.nesterov = False
  config.optimizer.steps_per_epoch = 1
  config.optimizer.floor = 0.0
  config.evaluation.network = "student"


def memory_bank_experiment(config: ConfigDict, args: ConfigDict, colors: str) -> ConfigDict:
  """Fills in what the original's experiments share: model, pretraining, optimiser, length, split.

  args: labels, split, pretraining (COCO|imagenet), model (v2|v3). colors: of config.model's
  normalization, the dataset whose mean is taken off.
  """
  if args.pretraining not in ("COCO", "imagenet"):
    raise ValueError(f"pretraining={args.pretraining!r}: choose from COCO, imagenet")
  if args.model not in ("v2", "v3"):
    raise ValueError(f"model={args.model!r}: choose from v2, v3")
  if args.model == "v3" and args.pretraining == "COCO":
    raise ValueError("model=v3 has no COCO weights: pretraining=imagenet")
  use_memory_bank(config)
  config.data.labeled = f"memory_bank/{args.labels}_{args.split}"
  bgr = args.pretraining == "COCO"
  config.model.normalization = f"{colors}_{'bgr' if bgr else 'rgb'}"
  config.model.reinit_classifier = True  # it takes what has the same size, and says nothing
  if args.model == "v3":
    config.model.name, config.model.backbone = "deeplabv3plus", "resnet50"
  else:
    config.model.name = f"deeplabv2_{args.pretraining.lower()}"
    config.model.output_stride = 8
  config.optimizer.learning_rate = 2e-4
  config.training.steps = 150_000
  config.training.reload_best_after = 30_000
  config.training.refresh_batch_stats = 1_000
  config.evaluation.every = 1_000
  config.evaluation.batch = 1
  config.evaluation.ties_replace = False
  return config


def parse(arg: str | None, **defaults: Any) -> ConfigDict:
  """The text behind a config file's colon, "labels=20,mixing=cutmix", over typed defaults.

  Raises ValueError for an unknown key (naming the nearest) or a value of another type.
  """
  values = ConfigDict(defaults)
  for pair in filter(None, (arg or "").split(",")):
    key, _, text = pair.partition("=")
    if key not in defaults:
      close = difflib.get_close_matches(key, defaults, n=1)
      hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(defaults)}"
      raise ValueError(f"config argument {pair!r}: unknown key {key!r}; {hint}")
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
  partial = bool(args.partial)
  if args.base not in ("semi", "sup"):
    raise ValueError(f"base={args.base!r}: choose from semi, sup")
  on_labels_alone = args.method == "supervised" or (args.method == "reco" and args.base == "sup")
  if args.method == "supervised":
    config.method = supervised()
  elif args.method == "mean_teacher":
    config.method = mean_teacher(args.mixing, scale_range, partial)
  elif args.method == "reco":
    config.method = reco(args.mixing if args.base == "semi" else None, scale_range, partial)
  else:
    raise ValueError(f"method={args.method!r}: choose from supervised, mean_teacher, reco")
  if on_labels_alone:  # the originals double the batch here
    config.data.labeled_batch *= 2
    config.evaluation.network = "student"
  choose_labels(config, args)
  config.data.labeled_transform.scale_range = scale_range
  config.model.name = args.model
  config.model.output_stride = {"deeplabv3p": 16, "deeplabv2": 8}.get(args.model, 16)
  return config
