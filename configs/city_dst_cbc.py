"""DST-CBC on Cityscapes (Feng et al., arXiv 2004.08514): self-training in five rounds.

Published mIoU at half resolution, supervised and DST-CBC (version=published): 45.5 and 48.7 with
1/30 of the labels, 56.7 and 60.5 with 1/8, 61.1 and 64.4 with 1/4, 66.9 with all.

    python launch.py --config=configs/city_dst_cbc.py:labels=8,split=1 --workdir=runs/dst8

Arguments: labels=30|8|4 (1 = all, for method=supervised); split, method, version, valtiny, batch as
in voc_dst_cbc. Rate, gamma and epochs of the rounds are VOC's: the authors state none.
Needs `python -m data.prepare cityscapes --raw=DIR --variant=full` and the COCO weights.
"""

from ml_collections import ConfigDict

from configs import common, rounds


def get_config(arg: str | None = None) -> ConfigDict:
  values = {"labels": 30, "split": 0, "method": "dst_cbc", "version": "scale", "valtiny": False}
  config = rounds.dst_cbc(rounds.CITY, common.parse(arg, **values, ablation=""))
  config.data.variant = "full"
  return config
