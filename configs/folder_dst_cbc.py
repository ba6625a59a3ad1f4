"""Your own folder of images, masks for some of them: DST-CBC, self-training in rounds.

    python launch.py --config=configs/folder_dst_cbc.py --config.data.root=DIR --workdir=runs/mine
    python launch.py --config=configs/folder_dst_cbc.py --config.data.root=DIR --export_labels ...

With --export_labels the last round's pseudo-labels are also written as PNGs into
DIR/pseudo_labels, in the dataset's colours, black where the network was not sure.
Arguments: size=small for a network that learns on a CPU, batch (docs/scaling.md).
Every image with a mask is labelled; --config.data.labeled=1/8_0 hides seven eighths of the masks.
"""

from ml_collections import ConfigDict

from configs import common, folder_reco


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, size="full")
  config = folder_reco.get_config(f"method=supervised,size={args.size}")
  config.data.labeled_batch //= 2
  for stream in ("labeled_transform", "unlabeled_transform"):
    common.choose(config, f"data.{stream}", "dst_cbc")
  common.choose(config, "method", "dst_cbc")
  config.training.steps //= 2
  config.rounds.count = 4
  config.rounds.ratio = config.rounds.increment = 0.25
  config.rounds.first = ConfigDict({
    "data": {"labeled_batch": 2 * config.data.labeled_batch}, "method": {"rule": None},
    "training": {"steps": config.training.steps},
  })  # fmt: skip
  return config
