"""Your own folder of images, masks for some of them: UniMatch V2 on DINOv2.

    python launch.py --config=configs/folder_unimatch.py --config.data.root=DIR \\
      --config.model.init_from=dinov2_vits14_pretrain.pth --workdir=runs/mine

Arguments: size=s|b|l|g (of DINOv2), method=unimatch_v2|fixmatch|supervised, batch
(docs/scaling.md). Every image with a mask is labelled; --config.data.labeled=1/8_0 hides seven
eighths of the masks. Without DINOv2's weights (docs/weights.md) configs/folder_reco.py is better.
"""

from ml_collections import ConfigDict

from configs import common, unimatch


def get_config(arg: str | None = None) -> ConfigDict:
  args = common.parse(arg, **unimatch.VALUES)
  config = common.base_config()
  unimatch.use_unimatch(config, args.method, args.size)
  config.data.update(name="folder", crop=(518, 518), labeled_batch=8, unlabeled_batch=8)
  config.evaluation.update(every=500, monitor="miou_present", own_size=True)
  config.evaluation.size = None
  config.training.steps = 10_000
  return config
