"""C3-SemiSeg on BDD100K (Zhou et al., ICCV 2021): a thirtieth, eighth or quarter of the labels.

The original has a configuration for it and no script: crops, scales, length, starts and the
thresholds' percentile are the configuration's, all else is Cityscapes' script. Its lists of
labelled images were never published: ours are drawn at random.

    python launch.py --config=configs/bdd_c3.py --workdir=runs/c3_bdd
    python launch.py --config=configs/bdd_c3.py:parts=4,split=2 --workdir=...

Arguments: parts=30|8|4 (one of so many is labelled), split (the seed), method=c3|supervised, batch
(docs/scaling.md). Every other option: docs/c3.md.
Needs ImageNet's ResNet-101 (docs/weights.md) as config.model.init_from.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, parts=30, split=1, method="c3")
  config = common.base_config()
  config.seed = 304
  config.data.update(name="bdd100k", crop=(512, 512), labeled=f"1/{args.parts}_{args.split}")
  config.evaluation.size = (720, 1280)
  config = common.c3_experiment(config, args.method, epoch=500, epochs=40)
  config.data.labeled_transform.update(height=720, scales=(0.75, 1.0, 1.25))
  config.data.unlabeled_transform.update(height=720, rand_augment=False)
  config.evaluation.transform.base_size = 1280
  config.method.end_percent = 0.4
  if args.method == "c3":
    config.method.contrast_start = config.method.unlabeled_start
  return config
