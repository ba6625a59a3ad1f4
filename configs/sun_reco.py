"""ReCo on SUN RGB-D, 37 classes (Liu et al., ICLR 2022): 50, 150, 500 or all labelled images.

python launch.py --config=configs/sun_reco.py --workdir=runs/sun50
python launch.py --config=configs/sun_reco.py:labels=500,method=supervised --workdir=...

Arguments: those of `common.reco_experiment`, and batch (docs/scaling.md).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  config = common.base_config()
  config.data.update(name="sun", rule="sun", crop=(321, 321))
  config.data.update(labeled_batch=5, unlabeled_batch=5)
  config.evaluation.size = (385, 513)
  config = common.reco_experiment(config, arg, scale_range=(0.5, 1.5), labels=50)
  if config.data.partial:
    raise ValueError("there are no partial labels for SUN RGB-D: the original makes none")
  return config
