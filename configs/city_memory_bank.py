"""The class-wise memory bank on Cityscapes (Alonso et al., ICCV 2021): 100, 372 or 744 labels.

Public listings of the paper's mIoU: DeepLabV2 with COCO weights 59.4 (100 labels), 64.4 (372), 65.9
(744); DeepLabV3+ 64.9 (100).

    python launch.py --config=configs/city_memory_bank.py --workdir=runs/bank100
    python launch.py --config=configs/city_memory_bank.py:labels=744,split=1,model=v3 --workdir=...

Arguments: labels=100|372|744, split=0|1|2, model=v2|v3, pretraining=COCO|imagenet (that the inputs
and layers are made for), batch (docs/scaling.md).
Needs `python -m data.prepare cityscapes --raw=DIR --variant=full`.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, labels=100, split=0, pretraining="", model="v2")
  config = common.base_config()
  config.seed = 5555
  config.data.update(name="cityscapes", variant="full", crop=(512, 512))
  config = common.memory_bank_experiment(config, args, "cityscapes")
  if args.model == "v2":  # crops of half the size, scored at full size
    config.data.labeled_transform.halve = config.data.unlabeled_transform.halve = True
    common.choose(config, "evaluation.transform", "memory_bank")
    config.evaluation.size = (512, 1024)
    config.data.labeled_batch, config.data.unlabeled_batch = 5, 2
  else:
    config.evaluation.size = (1024, 2048)
    config.data.labeled_batch, config.data.unlabeled_batch = 7, 3
    config.optimizer.learning_rate = 4e-4
  return config
