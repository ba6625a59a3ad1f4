"""Toy street scenes, labelled images alone, with any network of docs/networks.md made narrow.

    python launch.py --config=configs/toy_zoo.py:model=enet --workdir=runs/toy_enet
    python launch.py --config=configs/toy_zoo.py:model=pspnet,trunk=densenet121,loss=dice ...

Arguments: model, trunk (one that carries the network; default the smallest), loss (a name of
losses/labeled.py), labels (0 = all), split, batch (docs/scaling.md).
300 steps at one learning rate for all: enough to see that a network learns, and how fast it is.
"""

from ml_collections import ConfigDict

from configs import common, toy
from semiseg_jax.fields import choose, require
from semiseg_jax.losses.labeled import LOSSES
from semiseg_jax.models.resnet import ResNetTrunk
from semiseg_jax.models.vgg import VGGTrunk
from semiseg_jax.models.vit import ViTTrunk
from semiseg_jax.models.xception import XceptionTrunk
from semiseg_jax.networks import NETWORKS, TRUNKS

_SIZES = {  # the keys of a trunk; others have 16 channels in their first layer
  VGGTrunk: {"width": 8},
  XceptionTrunk: {"width": 8},
  ViTTrunk: {"width": 16, "depth": 6, "heads": 6, "grid": 9},
}


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, model="enet", trunk="", loss="ce", labels=0, split=0)
  kind = choose("model", args.model, {k: v for k, v in NETWORKS.items() if not v.OF_IMAGES})
  require("loss", args.loss, LOSSES)
  trunk = args.trunk or ("resnet18" if issubclass(ResNetTrunk, kind.TRUNKS) else kind().trunk.name)
  require("trunk", trunk, common.carriers(args.model))
  config = toy.toy_config(f"labels={args.labels},split={args.split}")
  common.choose(config, "model", args.model)
  if "decoder_dim" in config.model:
    config.model.decoder_dim = 64
  common.choose(config, "model.trunk", trunk, **_SIZES.get(TRUNKS[trunk], {"width": 16}))
  common.choose(config, "method", "supervised", supervised_loss=args.loss, augment=False)
  common.choose(config, "data.labeled_transform", "zoo", base_size=128, fill=255)
  common.choose(config, "optimizer", "adam", learning_rate=3e-3)
  config.training.update(steps=300, checkpoint_every=300)
  config.evaluation.every = 300
  return config
