r"""DMT on Cityscapes (Feng et al., Pattern Recognition 2022): two networks label for each other.

Published mIoU, baseline and DMT: 49.54 and 54.80 with 1/30 of the labels, 59.65 and 63.03 with 1/8.

    python launch.py --config=configs/city_dmt.py --workdir=runs/dmt \
      --config.model.init_from=resnet101COCO-41f33a49.pth \
      --config.rounds.second.model.init_from=resnet101-5d3b4d8f.pth

Arguments: labels=8|30 (1/labels of the images), split=1|0|2; pair=weights|none, rule, batch as in
voc_dmt. Needs `python -m data.prepare cityscapes --raw=DIR --variant=full`.
"""

from ml_collections import ConfigDict

from configs import common, rounds

_PHASES = rounds.Phases(4e-3, 3.0, 2, 6, 300)


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, labels=8, split=1, pair="weights", rule="mutual")
  config = rounds.dmt(rounds.CITY, rounds.DMT_CITY, _PHASES, args)
  config.data.variant = "full"
  return config
