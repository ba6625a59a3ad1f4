"""C3-SemiSeg on Cityscapes (Zhou et al., ICCV 2021): 100, 372, 744 or all labels, 256x512 crops.

The defaults are the published script's. The authors' README gives no scores.

    python launch.py --config=configs/city_c3.py --workdir=runs/c3_744
    python launch.py --config=configs/city_c3.py:labels=100,split=23456 --workdir=...

Arguments: labels=744|372|100 (0 = all), split=12345|23456|34567, method=c3|supervised (contrast
and unlabelled images left out), batch (docs/scaling.md). Every other option: docs/c3.md.
Needs `python -m data.prepare cityscapes --raw=DIR --variant=full`, and ImageNet's ResNet-101
(docs/weights.md) as config.model.init_from.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, labels=744, split=12345, method="c3")
  config = common.base_config()
  config.seed = 304
  config.data.update(name="cityscapes", variant="full", crop=(256, 512))
  config.data.labeled = f"c3/{args.labels}_seed{args.split}" if args.labels else "all"
  config.evaluation.size = (512, 1024)
  return common.c3_experiment(config, args.method, epoch=250, epochs=100)
