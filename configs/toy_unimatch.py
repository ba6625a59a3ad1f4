"""Toy street scenes, UniMatch V2: two strong views with complementary dropout.

python launch.py --config=configs/toy_unimatch.py --workdir=runs/toy_unimatch

Arguments: labels, split and batch as in the other toy configs;
method=unimatch_v2|fixmatch|supervised (the labelled images alone); model=dpt|deeplabv3p (a small
vision transformer, or a small ResNet-18). Both learn from scratch, so the head is no faster than
the encoder. A transformer learns little from a few images without pretraining: what the method is
worth shows on the ResNet (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import common, toy, unimatch
from semiseg_jax.fields import require

CROP = (98, 126)  # all of an image at its own scale, so that places mean the same as in evaluation


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, labels=8, split=0, method="unimatch_v2", model="dpt")
  require("model", args.model, ("dpt", "deeplabv3p"))
  config = toy.toy_config(f"labels={args.labels},split={args.split}")
  unimatch.use_unimatch(config, args.method, "s")
  if args.model == "deeplabv3p":
    toy.use_resnet(config)
  else:
    common.choose(config, "model.trunk", "vit_tiny", width=16, depth=4, heads=4, grid=9)
    config.model.decoder_dim = 16
  config.data.update(crop=CROP, labeled_batch=4, unlabeled_batch=4)
  for stream in ("labeled_transform", "unlabeled_transform"):
    config.data[stream].scales = (0.75, 1.5)
  common.choose(config, "optimizer", "adamw", learning_rate=2e-3)
  config.training.steps = 2_000
  config.evaluation.update(every=500, batch=10)
  return config
