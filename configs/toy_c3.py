"""Toy street scenes, C3-SemiSeg: cross-set contrast with class-balanced thresholds.

python launch.py --config=configs/toy_c3.py --workdir=runs/toy_c3

Arguments: labels, split and batch as in the other toy configs; contrast=false: without that term.
The network and its optimiser are the other toy configs'. Its BatchNorms are trained from scratch,
so the teacher averages their statistics too, which the original's frozen ones don't need.
"""

from ml_collections import ConfigDict

from configs import common, toy


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, labels=8, split=0, contrast=True)
  config = toy.toy_config(f"labels={args.labels},split={args.split}")
  for stream, name in (("labeled", "c3"), ("unlabeled", "c3_unlabeled")):
    scales = (0.75, 1.0, 1.25, 1.5)
    common.choose(config, f"data.{stream}_transform", name, height=96, scales=scales)
  common.choose(
    config, "method", "c3", average_statistics=True, unlabeled_start=300, consistency_ramp=500,
    contrast_ramp=100, pixels=4, embedding_dim=32, gpus=1,
  )  # fmt: skip
  if not args.contrast:
    config.method.contrast = None
  return config
