r"""DMT on Pascal VOC (Feng et al., Pattern Recognition 2022): two networks label for each other.

Published mIoU, baseline and DMT: 46.66 and 63.04 with 1/106 of the labels, 55.62 and 67.15 with
1/50, 62.29 and 69.92 with 1/20, 67.37 and 72.70 with 1/8.

    python launch.py --config=configs/voc_dmt.py --workdir=runs/dmt \
      --config.model.init_from=resnet101COCO-41f33a49.pth \
      --config.rounds.second.model.init_from=resnet101-5d3b4d8f.pth
    python launch.py --config=configs/voc_dmt.py:labels=106,pair=samples --workdir=...

Arguments: labels=20|8|50|106 (1/labels of the images) or 1464 (VOC's own train list), split=1|0|2,
pair=weights|samples|none: how the networks differ, none for one network that labels for itself;
rule=mutual, or an ablation: flip|naive|cbst|online; batch (docs/scaling.md).
"""

from ml_collections import ConfigDict

from configs import common, rounds

_PHASES = rounds.Phases(1e-3, 5.0, 1, 7, 500)


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, labels=20, split=1, pair="weights", rule="mutual")
  return rounds.dmt(rounds.VOC, rounds.DMT_VOC, _PHASES, args)
