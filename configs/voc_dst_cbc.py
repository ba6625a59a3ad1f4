"""DST-CBC on Pascal VOC (Feng et al., arXiv 2004.08514): self-training in five rounds.

Published mIoU, supervised and DST-CBC (version=published): 45.7 and 61.6 with 1/106 of the labels,
62.2 and 69.3 with 1/20, 73.5 with all.

    python launch.py --config=configs/voc_dst_cbc.py:labels=106,split=0 --workdir=runs/dst106
    python launch.py --config=configs/voc_dst_cbc.py:labels=20,method=supervised --workdir=...

Arguments: labels=106|50|20|8|4 (1/labels of the images; 1 = all, for method=supervised),
split=0|1|2, method=dst_cbc|supervised, version=scale|published (docs/dst_cbc.md), valtiny=true to
choose the best by 20 images, ablation=st|dst|dstc|ow|ost|ost_na|ost_t|ost_t_na|st_na, batch
(docs/scaling.md). A supervised run that is there already is taken by --config.rounds.start=WORKDIR.
Needs AdvSemiSeg's COCO weights (docs/weights.md) as config.model.init_from.
"""

from ml_collections import ConfigDict

from configs import common, rounds


def get_config(arg: str | None = None) -> ConfigDict:
  values = {"labels": 106, "split": 0, "method": "dst_cbc", "version": "scale", "valtiny": False}
  return rounds.dst_cbc(rounds.VOC, common.parse(arg, **values, ablation=""))
