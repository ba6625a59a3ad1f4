"""The class-wise memory bank on Pascal VOC (Alonso et al., ICCV 2021): 212, 530 or 1323 labels.

Public listings of the paper's mIoU, DeepLabV2 with COCO weights: 67.9 (212 labels), 71.6 (1323).

    python launch.py --config=configs/pascal_memory_bank.py --workdir=runs/bank212
    python launch.py --config=configs/pascal_memory_bank.py:split=2,reduced=true --workdir=...

Arguments: labels=212|530|1323, split=0|1|2, model=v2|v3, pretraining=COCO|imagenet, batch as in
city_memory_bank; reduced: small crops and labelled and unlabelled steps in turn, for little memory.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, labels=212, split=0, pretraining="", model="v2", reduced=False)
  config = common.base_config()
  config.seed = 7
  config.data.name = "pascal"
  config = common.memory_bank_experiment(config, args, "pascal")
  config.data.crop = (321, 321)
  config.data.labeled_batch = 14 if args.model == "v2" else 20
  config.method.update(class_balancing=False, background=0)
  config.method.quota_factor = 7.0  # a third of the classes
  if args.reduced:  # trainSSL_less_memory.py
    config.data.crop = (256, 256)
    config.data.labeled_batch = 8
    config.training.steps *= 2  # a step learns from one of the two streams
    config.training.reload_best_after *= 2
    config.method.update(alternate=True, entropy_broadcast=True, warmup_rate=1.0)
  config.data.unlabeled_batch = config.data.labeled_batch // 2
  return config
