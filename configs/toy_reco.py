"""Toy street scenes, ReCo on top of an EMA teacher with ClassMix.

python launch.py --config=configs/toy_reco.py --workdir=runs/toy_reco
"""

from ml_collections import ConfigDict

from configs import common, toy


def get_config(arg: str | None = None) -> ConfigDict:
  config = toy.toy_config(arg)
  config.method = common.reco("classmix", toy.SCALE_RANGE, bool(config.data.partial))
  config.method.num_queries = 64
  config.method.num_negatives = 128
  return config
