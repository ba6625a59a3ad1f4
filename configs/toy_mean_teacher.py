"""Toy street scenes, an EMA teacher with ClassMix.

python launch.py --config=configs/toy_mean_teacher.py --workdir=runs/toy_mean_teacher
"""

from ml_collections import ConfigDict

from configs import common, toy


def get_config(arg: str | None = None) -> ConfigDict:
  config = toy.toy_config(arg)
  config.method = common.mean_teacher("classmix", toy.SCALE_RANGE, bool(config.data.partial))
  return config
