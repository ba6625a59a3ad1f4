"""Your own folder of images, masks for some of them: ReCo with ClassMix.

    python launch.py --config=configs/folder_reco.py --config.data.root=DIR --workdir=runs/mine
    python launch.py --config=configs/folder_reco.py:method=mean_teacher --config.data.root=DIR ...

Arguments: method, mixing, base, batch as in city_reco; size=small for a network that learns on a
CPU.
Every image with a mask is labelled; --config.data.labeled=1/8_0 hides seven eighths of the masks.
"""

from ml_collections import ConfigDict

from configs import common
from semiseg_jax.fields import require


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, method="reco", mixing="classmix", base="semi", size="full")
  require("size", args.size, ("full", "small"))
  config = common.base_config()
  config.data.update(name="folder", crop=(321, 321), labeled_batch=8, unlabeled_batch=8)
  config.evaluation.size = None
  common.choose(config, "model.trunk", "resnet50")
  config.optimizer.learning_rate = 0.01
  config.training.steps = 10_000
  experiment = ",".join(f"{key}={args[key]}" for key in ("method", "mixing", "base"))
  config = common.reco_experiment(config, experiment, scale_range=(0.5, 1.5), labels=0)
  if args.size == "small":
    common.choose(config, "model.trunk", "resnet18", width=32)
    config.model.decoder_dim = 32
    if args.method == "reco":
      config.method.embedding_dim = 32
    config.data.crop = (160, 160)
    config.data.labeled_batch //= 2
    config.data.unlabeled_batch //= 2
    config.optimizer.learning_rate = 0.05
    config.optimizer.schedule.steps_per_epoch = 50
    config.training.steps = 2_000
  return config
