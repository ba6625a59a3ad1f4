"""Toy street scenes, an EMA teacher with ClassMix.

python launch.py --config=configs/toy_mean_teacher.py --workdir=runs/toy_mean_teacher

Arguments: labels (0 = all), split, partial, and batch (docs/scaling.md).
"""

from ml_collections import ConfigDict

from configs import common, toy


def get_config(arg: str | None = None) -> ConfigDict:
  config = toy.toy_config(arg)
  values = {"scale_range": toy.SCALE_RANGE, "partial": bool(config.data.partial)}
  common.choose(config, "method", "mean_teacher", **values)
  return config
