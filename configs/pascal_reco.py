"""ReCo on Pascal VOC 2012 + SBD (Liu et al., ICLR 2022): 60, 200, 600 or all labelled images.

README of the original, 60 labels, one run each: supervised 36.06, ClassMix 53.71, ReCo + ClassMix
57.12 mIoU.

    python launch.py --config=configs/pascal_reco.py --workdir=runs/pascal60
    python launch.py --config=configs/pascal_reco.py:partial=p0,method=mean_teacher --workdir=...

Arguments: those of `common.reco_experiment`, and batch (docs/scaling.md).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  config = common.base_config()
  config.data.update(name="pascal", min_classes=3, crop=(321, 321))
  config.data.update(labeled_batch=10, unlabeled_batch=10)
  config.evaluation.size = (513, 513)
  return common.reco_experiment(config, arg, scale_range=(0.5, 1.5), labels=60)
