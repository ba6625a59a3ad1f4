"""UniMatch V2 on COCO (Yang, Zhao and Zhao, TPAMI 2025), 80 things and background.

Published mIoU of the teacher, best of all epochs, with 1/512, 1/256, 1/128, 1/64 and 1/32 of the
labels: DINOv2-S 39.3, 45.4, 53.2, 55.0, 57.0; DINOv2-B 47.9, 55.8, 58.7, 60.4, 63.3.

    python launch.py --config=configs/coco_unimatch.py --config.model.init_from=FILE \
      --workdir=runs/coco_unimatch
    python launch.py --config=configs/coco_unimatch.py:labels=1_64,size=b ...

Arguments: labels=1_512|1_256|1_128|1_64|1_32|all, size=s|b|l|g (of DINOv2),
method=unimatch_v2|fixmatch|supervised, batch (docs/scaling.md).
--config.model.freeze_trunk=True trains the head alone. Needs `python -m data.prepare coco`.
The original's weights are DINOv2's (docs/weights.md): config.model.init_from.
"""

from ml_collections import ConfigDict

from configs import common, unimatch


def get_config(arg: str | None = None) -> ConfigDict:
  return unimatch.experiment("coco", common.parse(arg, labels="1_512", **unimatch.VALUES))
