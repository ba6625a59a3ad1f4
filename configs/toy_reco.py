"""Toy street scenes, ReCo on top of an EMA teacher with ClassMix.

python launch.py --config=configs/toy_reco.py --workdir=runs/toy_reco

Arguments: labels (0 = all), split, partial, and batch (docs/scaling.md).
"""

from ml_collections import ConfigDict

from configs import common, toy


def get_config(arg: str | None = None) -> ConfigDict:
  config = toy.toy_config(arg)
  values = {"scale_range": toy.SCALE_RANGE, "partial": bool(config.data.partial)}
  common.choose(config, "method", "reco", **values, num_queries=64, num_negatives=128)
  config.method.embedding_dim = 64
  return config
