"""UniMatch V2 on Cityscapes (Yang, Zhao and Zhao, TPAMI 2025), full size.

Published mIoU of the teacher, best of all epochs, with 1/16, 1/8, 1/4 and 1/2 of the labels:
DINOv2-S 80.5, 81.9, 82.4, 82.6; DINOv2-B 83.6, 84.3, 84.5, 85.1.

    python launch.py --config=configs/city_unimatch.py --config.model.init_from=FILE \
      --workdir=runs/city_unimatch
    python launch.py --config=configs/city_unimatch.py:labels=1_8,size=b ...

Arguments: labels=1_30|1_16|1_8|1_4|1_2|all, size=s|b|l|g (of DINOv2),
method=unimatch_v2|fixmatch|supervised, batch (docs/scaling.md).
--config.model.freeze_trunk=True trains the head alone. Needs `python -m data.prepare
cityscapes --variant=full`.
The original's weights are DINOv2's (docs/weights.md): config.model.init_from.
"""

from ml_collections import ConfigDict

from configs import common, unimatch


def get_config(arg: str | None = None) -> ConfigDict:
  return unimatch.experiment("city", common.parse(arg, labels="1_16", **unimatch.VALUES))
