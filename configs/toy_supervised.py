"""Toy street scenes, the labelled images alone: the baseline of toy_mean_teacher and toy_reco.

python launch.py --config=configs/toy_supervised.py --workdir=runs/toy_supervised

Arguments: labels (0 = all), split, partial, and batch (docs/scaling.md).
"""

from ml_collections import ConfigDict

from configs import common, toy


def get_config(arg: str | None = None) -> ConfigDict:
  config = toy.toy_config(arg)
  common.choose(config, "method", "supervised")
  config.data.labeled_batch *= 2
  return config
