"""pytorch-segmentation and its RankDice fork: any of their networks, losses and data sets.

A run is one of the originals' JSON files, with what else is named instead of what it says:

    python launch.py --config=configs/zoo.py --workdir=runs/psp_voc
    python launch.py --config=configs/zoo.py:json=kvasir --workdir=...
    python launch.py --config=configs/zoo.py:json=fork,loss=lovasz_softmax,schedule=one_cycle ...
    python launch.py --config=configs/zoo.py:dataset=ade20k,model=upernet,trunk=resnet50 ...

Arguments: json=train_aug (upstream's README) | upstream (its config.json) | fork (its config.json)
| cityscales | voc | kvasir; dataset=voc|voc_aug|cityscapes|ade20k|cocostuff|cocostuff10k|kvasir;
model=pspnet|deeplabv3plus_zoo|upernet|gcn|duc_hdc|unet|unet_resnet|segnet|segresnet|fcn8|enet;
trunk (one that carries the network); loss (a name of losses/labeled.py); schedule=poly|one_cycle;
batch (docs/scaling.md). docs/zoo.md has every key of the JSON files.
The originals start from trained trunks: config.model.init_from (docs/weights.md).
Published mIoU: PSPNet on a ResNet-50, VOC: 82 (validation), 79 (test).
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from configs import common
from semiseg_jax.fields import choose, require
from semiseg_jax.losses.labeled import LOSSES


class File(NamedTuple):
  """What the originals' files differ in.

  crop, size: sides in training and validation. base_size: None where nothing is rescaled. monitor:
  None = off. every: epochs from one validation to the next. is_fork: the trainer passes each batch
  twice. classes: those of interest, None = all.
  """

  dataset: str
  model: str
  loss: str
  batch: int
  crop: int
  size: int
  epochs: int
  base_size: int | None = None
  monitor: str | None = None
  every: int = 10
  is_fork: bool = True
  classes: str | None = None


_UPSTREAM = {"base_size": 400, "monitor": "miou_zero", "every": 5, "is_fork": False}
FILES = {
  "upstream": File("cityscapes", "pspnet", "ce", 8, 380, 480, 80, **_UPSTREAM),
  "train_aug": File("voc_aug", "pspnet", "ce", 32, 380, 480, 80, **_UPSTREAM),
  "fork": File("cityscapes", "pspnet", "dice", 6, 512, 512, 300),
  "cityscales": File("cityscapes", "deeplabv3plus_zoo", "lovasz_softmax", 6, 512, 512, 300),
  "voc": File("voc", "pspnet", "bce_dice", 8, 380, 480, 300, monitor="loss", classes="1-20"),
  "kvasir": File("kvasir", "fcn8", "ce", 8, 320, 320, 150, classes="1"),
}


class Dataset(NamedTuple):
  """A loader: a prepared set, its labelled images and how many they are, and its colours' name."""

  name: str
  images: int
  colors: str
  variant: str | None = None
  labeled: str = "all"


DATASETS = {
  "voc": Dataset("pascal", 1464, "voc", labeled="voc/train"),
  "voc_aug": Dataset("pascal", 10_582, "voc"),
  "cityscapes": Dataset("cityscapes", 2975, "cityscapes", "full"),
  "ade20k": Dataset("ade20k", 20_210, "ade20k"),
  "cocostuff": Dataset("cocostuff", 118_287, "cocostuff", "164k"),
  "cocostuff10k": Dataset("cocostuff", 9000, "cocostuff", "10k_513"),
  "kvasir": Dataset("kvasir", 880, "ade20k"),
}

# Each network's trunk, the files' own where they name one, else the original constructor's.
MODELS = {
  "pspnet": "resnet50", "deeplabv3plus_zoo": "resnet101", "upernet": "resnet101",
  "gcn": "resnet50", "duc_hdc": "resnet101", "unet": "unet", "unet_resnet": "resnet50",
  "segnet": "vgg16_bn", "segresnet": "resnet50", "fcn8": "vgg16", "enet": "enet",
}  # fmt: skip
_DEEP_STEMS = ("pspnet", "unet_resnet")  # on ResNets of bottlenecks
# What learns ten times as slowly; FCN-8s's former linear layers are its backbone's too.
_BACKBONES = {"fcn8": r"^(trunk|conv6|conv7|classifier)\.", "unet": "", "segnet": "", "enet": ""}
_PATIENCE = 10  # validations (early_stop)
_SAVE_PERIOD = 10  # epochs


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(
    arg, json="train_aug", dataset="", model="", trunk="", loss="", schedule="poly"
  )
  file = choose("json", args.json, FILES)
  file = file._replace(**{key: args[key] for key in ("dataset", "model", "loss") if args[key]})
  if args.dataset:
    file = file._replace(classes=None)
  require("loss", file.loss, LOSSES)
  trunk = args.trunk or choose("model", file.model, MODELS)
  require("trunk", trunk, common.carriers(file.model))
  config = common.base_config()
  common.choose(config, "model", file.model)
  common.choose(config, "model.trunk", trunk)
  if file.model in _DEEP_STEMS and trunk in ("resnet50", "resnet101", "resnet152"):
    config.model.trunk.deep_stem = True
  common.choose(
    config, "method", "supervised", supervised_loss=file.loss, augment=False,
    second_pass=file.is_fork,
  )  # fmt: skip
  _choose_data(config, file)
  _choose_optimizer(config, file.model, args.schedule)
  _choose_length(config, file)
  return config


def _choose_data(config: ConfigDict, file: File) -> None:
  """Images, their geometry and their colours, in training and validation."""
  dataset = choose("dataset", file.dataset, DATASETS)
  config.data.update(name=dataset.name, variant=dataset.variant, labeled=dataset.labeled)
  config.data.update(crop=(file.crop, file.crop), labeled_batch=file.batch)
  config.model.normalization = f"zoo_{dataset.colors}"
  common.choose(config, "data.labeled_transform", "zoo", base_size=file.base_size)
  common.choose(config, "evaluation.transform", "zoo", size=file.size)
  config.evaluation.size = (file.size, file.size)


def _choose_optimizer(config: ConfigDict, model: str, schedule: str) -> None:
  """SGD, at a tenth of the rate for the backbone; its schedule counts its first step as 1."""
  require("schedule", schedule, ("poly", "one_cycle"))
  of_poly = {"steps_per_epoch": 1, "floor": 0.0} if schedule == "poly" else {}
  common.choose(config, "optimizer.schedule", schedule, first=1, **of_poly)
  backbone = _BACKBONES.get(model, r"^trunk\.")
  common.choose(
    config, "optimizer", "sgd", learning_rate=0.01, weight_decay=1e-4, nesterov=False,
    groups=((backbone, 0.1, None),) if backbone else (),
  )  # fmt: skip


def _choose_length(config: ConfigDict, file: File) -> None:
  """Epochs in steps; one ends with a smaller batch in the originals, which counts as a step."""
  epoch = -(-DATASETS[file.dataset].images // file.batch)
  config.training.update(steps=file.epochs * epoch, checkpoint_every=_SAVE_PERIOD * epoch)
  config.evaluation.update(every=file.every * epoch, ties_replace=False)
  config.evaluation.monitor = file.monitor or "miou_zero"
  config.evaluation.classes = file.classes
  if file.monitor:
    config.training.stop_after = _PATIENCE * config.evaluation.every
