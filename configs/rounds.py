"""What the experiments of DST-CBC and DMT share: datasets, tables of lengths, the first round."""

from typing import NamedTuple

from ml_collections import ConfigDict, config_dict

from configs import common
from semiseg_jax.fields import require


class Supervised(NamedTuple):
  """The supervised round on `images` labelled ones, scored every so many steps."""

  images: int
  epochs: int
  every: int


class Dataset(NamedTuple):
  """crop, size: of training and test images; published: both in the first version. resize: what
  images are brought to before they are cut, None for their own. labels: by config argument."""

  name: str
  images: int
  crop: tuple[int, int]
  size: tuple[int, int]
  published: tuple[tuple[int, int], tuple[int, int]]
  resize: tuple[int, int] | None
  learning_rate: float
  labels: dict[int, Supervised]


VOC = Dataset(
  "pascal", 10_582, (321, 321), (505, 505), ((321, 321), (505, 505)), None, 0.002,
  {
    1: Supervised(10_582, 30, 1000), 4: Supervised(2645, 60, 500), 8: Supervised(1322, 85, 350),
    20: Supervised(530, 134, 220), 50: Supervised(211, 212, 140), 106: Supervised(100, 300, 100),
  },
)  # fmt: skip
CITY = Dataset(
  "cityscapes", 2975, (256, 512), (512, 1024), ((257, 513), (513, 1025)), (512, 1024), 0.004,
  {
    1: Supervised(2975, 60, 1000), 4: Supervised(743, 120, 500), 8: Supervised(371, 170, 350),
    30: Supervised(100, 330, 100),
  },
)  # fmt: skip


def images_of(dataset: Dataset, version: str) -> ConfigDict:
  """Data, network, optimiser and evaluation of a version, scale | published, before any length."""
  require("version", version, ("scale", "published"))
  published = version == "published"
  crop, size = dataset.published if published else (dataset.crop, dataset.size)
  config = common.base_config()
  config.data.update(name=dataset.name, crop=crop, min_classes=1)
  for stream in ("labeled_transform", "unlabeled_transform"):
    if published:
      common.choose(config, f"data.{stream}", "dst_cbc_published", largest=size)
    else:
      common.choose(config, f"data.{stream}", "dst_cbc", resize=dataset.resize)
  resizes = dataset.resize is not None
  tested = ("dst_cbc", {"size": size}) if resizes else ("pad", {"size": size})
  labelled = ("dst_cbc", {"size": crop}) if published else tested
  common.choose(config, "evaluation.transform", tested[0], **tested[1])
  common.choose(config, "rounds.labels.transform", labelled[0], **labelled[1])
  common.choose(config, "model", "deeplabv2", classifier_branches=2)
  common.choose(config, "optimizer.schedule", "poly", steps_per_epoch=1, floor=0.0)
  common.choose(config, "optimizer", "sgd", nesterov=False)
  config.evaluation.update(size=size, batch=8, ahead=1, ties_replace=False)
  config.rounds.labels.update(version=version, batch=8, size=labelled[1]["size"])
  if resizes and not published:
    config.rounds.labels.label_size = crop  # half as fine as its images, as the code has it
  return config


def supervised(config: ConfigDict, table: Supervised, learning_rate: float) -> None:
  """Makes the supervised round of a config out of those behind it."""
  steps = table.epochs * -(-table.images // 8)
  config.rounds.first = ConfigDict({
    "data": {"labeled_batch": 8},
    "method": {"rule": None},
    "optimizer": {"learning_rate": learning_rate},
    "training": {"steps": steps, "checkpoint_every": 10 * table.every},
    "evaluation": {"every": table.every},
  })  # fmt: skip


def alone(config: ConfigDict) -> ConfigDict:
  """The supervised round as an ordinary run."""
  config.update(config.rounds.first.to_dict())
  config.rounds.update(count=0, first=ConfigDict())
  return config


# The first version's ablations (VOC 1/20, set 1), by argument: loss, labels, epochs of each round.
# Its online thresholds of 0 and 0.9 are raised by 1e-4, as the code has it.
_ABLATIONS = {
  "st": {"gamma": 0.0},
  "dst": {},
  "dstc": {"per_class": False, "rounds": True},
  "ow": {"rule": "stored", "rounds": True},
  "ost": {"gamma": 0.0, "rule": "online", "threshold": 1e-4},
  "ost_na": {"gamma": 0.0, "rule": "online", "threshold": 1e-4, "squash": True},
  "ost_t": {"gamma": 0.0, "rule": "online", "threshold": 0.9001},
  "ost_t_na": {"gamma": 0.0, "rule": "online", "threshold": 0.9001, "squash": True},
  "st_na": {"gamma": 0.0, "squash": True},
}


def dst_cbc(dataset: Dataset, args: ConfigDict) -> ConfigDict:
  """One network in five rounds of six epochs, 4 + 4 images a step, or its supervised baseline.

  args: labels (1/labels of the images), split, method=dst_cbc|supervised, version=scale|published,
  valtiny, ablation.
  """
  require("labels", args.labels, dataset.labels)
  require("method", args.method, ("dst_cbc", "supervised"))
  require("ablation", args.ablation, ("", *_ABLATIONS))
  version = "published" if args.ablation else args.version
  config = images_of(dataset, version)
  config.seed = 4396
  config.data.labeled = f"dst_cbc/{args.labels}_{args.split}"
  config.data.labeled_batch = config.data.unlabeled_batch = 4
  config.evaluation.subset = "dst_cbc/valtiny" if args.valtiny else None
  common.choose(config, "method", "dst_cbc")
  table = dataset.labels[args.labels]
  supervised(config, table, dataset.learning_rate if version == "scale" else 0.002)
  if args.method == "supervised":
    return alone(config)
  if args.labels == 1:
    raise ValueError("labels=1 leaves no image unlabelled: it is the baseline, method=supervised")
  epoch = -(-(dataset.images - table.images) // 4)
  config.optimizer.learning_rate = 0.002  # of VOC; Cityscapes' is not stated anywhere
  config.rounds.count = 5
  config.training.steps = 6 * epoch
  config.evaluation.every = 1000
  return ablated(config, args.ablation, epoch) if args.ablation else config


def ablated(config: ConfigDict, name: str, epoch: int) -> ConfigDict:
  """One round of 30 epochs with every pixel labelled, or five of six, with one part changed."""
  values = dict(_ABLATIONS[name])
  config.rounds.labels.per_class = values.pop("per_class", True)
  if values.pop("squash", False):
    common.choose(config, "data.unlabeled_transform", "dst_cbc_squash")
  if not values.pop("rounds", False):
    config.rounds.update(count=1, ratio=1.0, increment=0.0)
    config.training.steps = 30 * epoch
  config.rounds.online = values.get("rule") == "online"
  config.method.update(values)
  return config


class Phases(NamedTuple):
  """DMT's rounds: learning rate, gamma of both kinds, batches, steps between scores."""

  learning_rate: float
  gamma: float
  labeled: int
  unlabeled: int
  every: int


_DMT_ABLATIONS = {
  "flip": {},
  "naive": {"rule": "dynamic", "gamma": 5.0},
  "cbst": {"rule": "dynamic", "gamma": 0.0},
  "online": {"threshold": 0.9},
}
DMT_VOC = {
  8: (Supervised(1322, 85, 350), 4), 20: (Supervised(530, 134, 220), 4),
  50: (Supervised(211, 134, 220), 4), 106: (Supervised(100, 300, 100), 4),
  1464: (Supervised(1464, 85, 350), 5),
}  # fmt: skip
DMT_CITY = {8: (Supervised(371, 170, 350), 10), 30: (Supervised(100, 330, 100), 10)}


def dmt(
  dataset: Dataset, table: dict[int, tuple[Supervised, int]], phases: Phases, args: ConfigDict
) -> ConfigDict:
  """Two networks that label for each other in five phases.

  args: labels, split; pair=weights (they start from different ones) | samples (they learn from
  different four fifths of the labelled images) | none (one that labels for itself); rule=mutual,
  or an ablation: flip | naive | cbst | online.
  """
  require("labels", args.labels, table)
  require("rule", args.rule, ("mutual", *_DMT_ABLATIONS))
  require("pair", args.pair, ("weights", "samples", "none"))
  first, epochs = table[args.labels]
  config = images_of(dataset, "scale")
  config.seed = 1
  config.data.labeled = (
    "voc/train" if args.labels == 1464 else f"dst_cbc/{args.labels}_{args.split}"
  )
  config.data.update(labeled_batch=phases.labeled, unlabeled_batch=phases.unlabeled)
  values = {"rule": args.rule, "gamma": phases.gamma, "gamma2": phases.gamma}
  common.choose(config, "method", "dst_cbc", **{**values, **_DMT_ABLATIONS.get(args.rule, {})})
  epoch = -(-(dataset.images - first.images) // phases.unlabeled)
  config.training.steps = epochs * epoch
  config.evaluation.every = phases.every
  config.optimizer.learning_rate = phases.learning_rate
  config.rounds.count = 5
  config.rounds.labels.label_size = None
  second = ConfigDict({"seed": 2})
  if args.pair == "samples":
    if args.labels == 1464 or dataset is not VOC:
      raise ValueError("pair=samples: there are such samples of VOC's 1/8, 1/20, 1/50 and 1/106")
    whole = config.data.labeled
    config.data.unlabeled = f"rest of {whole}"
    left, right = (whole.replace("dst_cbc", "dmt") + side for side in ("_left", "_right"))
    config.data.labeled, second.data = left, ConfigDict({"labeled": right})
    first = first._replace(images=first.images - -(-first.images // 5))
  if args.pair == "weights":
    second.model = ConfigDict({"init_from": config_dict.placeholder(str)})
  if args.pair != "none":
    config.rounds.second = second
  supervised(config, first, dataset.learning_rate)
  if args.rule == "online":
    if args.pair != "none":
      raise ValueError("rule=online has no labeller: pair=none")
    config.rounds.update(count=1, online=True)
    config.training.steps = 20 * epoch
  return config
