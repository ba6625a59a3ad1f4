"""Toy street scenes, DST-CBC: a supervised round and two on pseudo-labels.

python launch.py --config=configs/toy_dst_cbc.py --workdir=runs/toy_dst_cbc

Arguments: labels, split and batch as in the other toy configs; method=dst_cbc|supervised (as many
steps on the labelled images alone). The first round on pseudo-labels takes the surer half of each
class's pixels, the second all of them.
"""

from ml_collections import ConfigDict

from configs import common, rounds, toy
from semiseg_jax.fields import require


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, labels=8, split=0, method="dst_cbc")
  require("method", args.method, ("dst_cbc", "supervised"))
  config = toy.toy_config(f"labels={args.labels},split={args.split}")
  for stream in ("labeled_transform", "unlabeled_transform"):
    common.choose(config, f"data.{stream}", "dst_cbc", scale_range=toy.SCALE_RANGE)
  common.choose(config, "method", "dst_cbc", gamma=2.0)
  config.training.steps = 500
  config.evaluation.ties_replace = False
  config.rounds.update(count=2, ratio=0.5, increment=0.5)
  config.rounds.labels.update(batch=10, size=(96, 128))
  first = {"data": {"labeled_batch": 8}, "method": {"rule": None}, "training": {"steps": 500}}
  config.rounds.first = ConfigDict(first)
  if args.method == "supervised":
    config = rounds.alone(config)
    config.training.steps *= 3
  return config
