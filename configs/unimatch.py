"""What the experiments of UniMatch V2 share: datasets, lengths, networks, optimiser."""

from typing import NamedTuple

from ml_collections import ConfigDict

from configs import common
from semiseg_jax.fields import choose, require

GPUS = 4  # of the original's runs, by which it rounds its epochs


class Dataset(NamedTuple):
  """images: of training. listed: at least so many are an epoch of supervised training. labels: how
  many of them are labelled, by split. batch: of each GPU. window: images are seen through windows
  of that side in evaluation; None: whole, in their own sizes."""

  name: str
  images: int
  listed: int
  crop: int
  epochs: int
  batch: int
  labels: dict[str, int]
  variant: str | None = None
  loss: str = "ce"
  size: tuple[int, int] | None = None
  window: int | None = None


DATASETS = {
  "voc": Dataset(
    "pascal", 10_582, 3000, 518, 60, 4,
    {"92": 92, "183": 183, "366": 366, "732": 732, "1464": 1464},
  ),
  "city": Dataset(
    "cityscapes", 2975, 3000, 798, 180, 2,
    {"1_30": 100, "1_16": 186, "1_8": 372, "1_4": 744, "1_2": 1488},
    variant="full", loss="ohem(threshold=0.7,min_kept=800000)", size=(1024, 2048), window=798,
  ),  # the original keeps 200,000 on each GPU
  "ade20k": Dataset(
    "ade20k", 20_210, 6000, 518, 60, 2,
    {"1_64": 316, "1_32": 631, "1_16": 1263, "1_8": 2526, "1_4": 5052, "1_2": 10_105},
  ),
  "coco": Dataset(
    "coco", 118_287, 30_000, 518, 20, 4,
    {"1_512": 232, "1_256": 463, "1_128": 925, "1_64": 1849, "1_32": 3697},
  ),
}  # fmt: skip
SIZES = {"s": "small", "b": "base", "l": "large", "g": "giant"}
METHODS = ("unimatch_v2", "fixmatch", "supervised")
VALUES = {"size": "s", "method": "unimatch_v2"}


def experiment(name: str, args: ConfigDict) -> ConfigDict:
  """One of the original's: labels, size and method as the config files explain them."""
  dataset = DATASETS[name]
  config = common.base_config()
  every = args.labels == "all"
  if every and args.method != "supervised":
    raise ValueError(f"labels=all leaves no image unlabelled: take method=supervised, not {name}")
  labeled = dataset.images if every else choose("labels", args.labels, dataset.labels)
  config.data.update(name=dataset.name, variant=dataset.variant)
  config.data.labeled = "all" if every else f"unimatch/{args.labels}"
  use_unimatch(config, args.method, args.size, dataset.loss)
  config.data.crop = (dataset.crop, dataset.crop)
  rows = GPUS * dataset.batch
  images = dataset.images - labeled
  if args.method == "supervised":
    rows, images = 2 * rows, max(dataset.listed, labeled)
  config.data.update(labeled_batch=rows, unlabeled_batch=rows)
  epoch = -(-images // GPUS) // (rows // GPUS)
  config.training.update(steps=dataset.epochs * epoch, checkpoint_every=epoch)
  config.evaluation.every = epoch
  config.evaluation.size = dataset.size
  if dataset.window:
    config.evaluation.window = (dataset.window, dataset.window)
  config.evaluation.own_size = dataset.window is None
  return config


def use_unimatch(config: ConfigDict, method: str, size: str, loss: str = "ce") -> None:
  """The method, its views, the network and its optimiser."""
  require("method", method, METHODS)
  common.choose(config, "data.labeled_transform", "unimatch")
  common.choose(config, "data.unlabeled_transform", "unimatch_unlabeled")
  common.choose(config, "model", "dpt")
  common.choose(config, "model.trunk", f"dinov2_{choose('size', size, SIZES)}")
  plain = {"augment": False} if method == "supervised" else {}
  common.choose(config, "method", method, supervised_loss=loss, **plain)
  # its rate lags a step behind
  common.choose(config, "optimizer.schedule", "poly", first=-1, steps_per_epoch=1, floor=0.0)
  groups = ((r"^(?!trunk\b)", 40.0, None),)
  common.choose(config, "optimizer", "adamw", learning_rate=5e-6, groups=groups)
  config.evaluation.update(batch=1, monitor="miou_zero", every_network=method != "supervised")
  config.inference.multiple = 14
