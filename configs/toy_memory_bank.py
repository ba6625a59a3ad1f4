"""Toy street scenes, the class-wise memory bank.

python launch.py --config=configs/toy_memory_bank.py --workdir=runs/toy_memory_bank

Arguments: labels, split and batch as in the other toy configs; contrast=false: without the bank's
term.
The network is theirs; the momentum without Nesterov's correction and the learning rate that falls
at every step are the original's.
"""

from ml_collections import ConfigDict

from configs import common, toy


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, labels=8, split=0, contrast=True)
  config = toy.toy_config(f"labels={args.labels},split={args.split}")
  common.use_memory_bank(config)
  config.method.update(ramp_steps=300, bank_lead=100, memory_per_class=64, head_dim=32)
  if not args.contrast:
    config.method.contrast_weight = 0.0
  return config
