"""UniMatch V2 on ADE20K (Yang, Zhao and Zhao, TPAMI 2025).

Published mIoU of the teacher, best of all epochs, with 1/64, 1/32, 1/16, 1/8 and 1/4 of the labels:
DINOv2-S 31.5, 38.1, 40.7, 44.4, 45.8; DINOv2-B 38.7, 45.0, 46.7, 49.8, 52.0. The original's file
freezes the encoder; the published runs did not.

    python launch.py --config=configs/ade20k_unimatch.py --config.model.init_from=FILE \
      --workdir=runs/ade20k_unimatch
    python launch.py --config=configs/ade20k_unimatch.py:labels=1_16,size=b ...

Arguments: labels=1_64|1_32|1_16|1_8|1_4|1_2|all, size=s|b|l|g (of DINOv2),
method=unimatch_v2|fixmatch|supervised, batch (docs/scaling.md).
--config.model.freeze_trunk=True trains the head alone. Needs `python -m data.prepare ade20k`.
The original's weights are DINOv2's (docs/weights.md): config.model.init_from.
"""

from ml_collections import ConfigDict

from configs import common, unimatch


def get_config(arg: str | None = None) -> ConfigDict:
  return unimatch.experiment("ade20k", common.parse(arg, labels="1_64", **unimatch.VALUES))
