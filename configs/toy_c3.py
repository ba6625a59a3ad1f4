"""Toy street scenes, C3-SemiSeg: cross-set contrast with class-balanced thresholds.

python launch.py --config=configs/toy_c3.py --workdir=runs/toy_c3

Arguments: labels, split and batch as in the other toy configs; method=c3|supervised (the labelled
images alone); contrast=false: without that term.
The network and its optimiser are the other toy configs', the run is twice as long. Its BatchNorms
are trained from scratch, so the teacher averages their statistics too, which the original's frozen
ones don't need.
"""

from ml_collections import ConfigDict

from configs import common, toy
from semiseg_jax.fields import require


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, labels=8, split=0, method="c3", contrast=True)
  require("method", args.method, ("c3", "supervised"))
  config = toy.toy_config(f"labels={args.labels},split={args.split}")
  config.data.update(labeled_batch=8, unlabeled_batch=8)
  config.training.steps = 3_000  # images that are mixed take longer to learn from
  config.evaluation.every = 500
  views = {"height": 96, "scales": (0.75, 1.0, 1.25, 1.5)}
  common.choose(config, "data.labeled_transform", "c3", **views, jitter=0.3)
  common.choose(
    config, "data.unlabeled_transform", "c3_unlabeled", **views, jitter=0.5, rand_augment=False
  )  # colours tell these scenes' classes apart
  common.choose(
    config, "method", "c3", average_statistics=True, unlabeled_start=500, consistency_ramp=500,
    consistency_weight=10.0, contrast_ramp=100, pixels=4, embedding_dim=32, gpus=1,
  )  # fmt: skip
  if args.method == "supervised":
    config.method.unlabeled_start = None
  if args.method == "supervised" or not args.contrast:
    config.method.contrast = None
  return config
