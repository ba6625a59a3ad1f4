"""Domain adaptation with few labels: GTA5's labels, some of Cityscapes', the rest of it unlabelled.

ReCo with ClassMix, or a baseline, at half resolution; the labelled sets are those of Alonso et al.

    python launch.py --config=configs/gta5_city.py --workdir=runs/gta5_city100
    python launch.py --config=configs/gta5_city.py:method=mean_teacher,labels=372 --workdir=...

Arguments: method=supervised|mean_teacher|reco, mixing, labels=100|372|744, split=0|1|2,
batch (docs/scaling.md).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, method="reco", mixing="classmix", labels=100, split=0)
  config = common.base_config()
  config.data.update(name="cityscapes", variant="half", crop=(512, 512))
  config.data.update(labeled_batch=2, unlabeled_batch=2)
  config.data.domain.update(name="gta5", variant="half", batch=2)
  config.evaluation.size = (512, 1024)
  experiment = f"method={args.method},mixing={args.mixing},split={args.split}"
  config = common.reco_experiment(config, experiment, scale_range=(1.0, 1.0), labels=0)
  config.data.labeled = f"memory_bank/{args.labels}_{args.split}"
  return config
