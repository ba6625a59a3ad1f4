"""Semi-supervised domain adaptation with the memory bank: GTA5's labels and a few of Cityscapes'.

    python launch.py --config=configs/gta5_city_memory_bank.py --workdir=runs/gta5_bank100

Arguments as in city_memory_bank, of DeepLabV2, batch among them. Labelled batches come from
Cityscapes and GTA5 in turn, as the paper intends; the released script takes GTA5 in 50 of its last
100 steps only, which is --config.method.domain_schedule=code.
"""

from ml_collections import ConfigDict

from configs import city_memory_bank, common


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, labels=100, split=0, pretraining="imagenet")
  config = city_memory_bank.get_config(",".join(f"{key}={args[key]}" for key in args))
  config.data.domain.update(name="gta5", variant="full", batch=config.data.labeled_batch)
  config.data.domain.transform = config.data.labeled_transform.copy_and_resolve_references()
  config.method.update(labeled_mix=0.25, contrast_weight=0.2)
  config.method.update(warmup_rate=1.0, entropy_broadcast=True)
  return config
