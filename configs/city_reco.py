"""ReCo on Cityscapes (Liu et al., ICLR 2022): 20, 50, 150 or all labelled images, 512x1024.

README of the original, 20 labels, one run each: supervised 38.10, ClassMix 45.13, ReCo + ClassMix
50.14 mIoU.

    python launch.py --config=configs/city_reco.py --workdir=runs/city20
    python launch.py --config=configs/city_reco.py:labels=150,split=1 --workdir=...
    python launch.py --config=configs/city_reco.py:partial=p1,mixing=cutmix --workdir=...

Arguments: those of `common.reco_experiment`, and batch (docs/scaling.md).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  config = common.base_config()
  config.data.update(name="cityscapes", variant="half", min_classes=12, crop=(512, 512))
  config.data.update(labeled_batch=2, unlabeled_batch=2)
  config.evaluation.size = (512, 1024)
  return common.reco_experiment(config, arg, scale_range=(1.0, 1.0), labels=20)
