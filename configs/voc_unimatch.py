"""UniMatch V2 on Pascal VOC (Yang, Zhao and Zhao, TPAMI 2025).

Published mIoU of the teacher, best of all epochs, with 92, 183, 366, 732 and 1464 labels: DINOv2-S
79.0, 85.5, 85.8, 86.7, 87.8; DINOv2-B 86.3, 87.9, 88.9, 90.0, 90.8.

    python launch.py --config=configs/voc_unimatch.py --config.model.init_from=FILE \
      --workdir=runs/voc_unimatch
    python launch.py --config=configs/voc_unimatch.py:labels=366,size=b ...

Arguments: labels=92|183|366|732|1464|all, size=s|b|l|g (of DINOv2),
method=unimatch_v2|fixmatch|supervised, batch (docs/scaling.md).
--config.model.freeze_trunk=True trains the head alone. Needs `python -m data.prepare pascal`.
The original's weights are DINOv2's (docs/weights.md): config.model.init_from.
"""

from ml_collections import ConfigDict

from configs import common, unimatch


def get_config(arg: str | None = None) -> ConfigDict:
  return unimatch.experiment("voc", common.parse(arg, labels="92", **unimatch.VALUES))
