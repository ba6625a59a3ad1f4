"""Toy street scenes and a small network, shared by the toy configs: minutes on two CPU cores."""

from ml_collections import ConfigDict

from configs import common

SCALE_RANGE = (0.75, 1.5)


def toy_config(arg: str | None) -> ConfigDict:
  """Arguments: labels (0 = all), split (seed of the labelled set and of the run), partial."""
  args = common.parse(arg, labels=8, split=0, partial="")
  config = common.base_config()
  common.choose_labels(config, args)
  config.data.update(name="toy_scenes", min_classes=3, crop=(96, 96))
  config.data.update(labeled_batch=4, unlabeled_batch=4)
  config.data.labeled_transform.scale_range = SCALE_RANGE
  use_resnet(config)
  config.optimizer.learning_rate = 0.05
  config.optimizer.schedule.steps_per_epoch = 50
  config.training.update(steps=1_500, checkpoint_every=500)
  config.evaluation.update(every=250, batch=10, size=(96, 128))
  return config


def use_resnet(config: ConfigDict) -> None:
  """DeepLabV3+ on a narrow ResNet-18."""
  common.choose(config, "model", "deeplabv3p")
  common.choose(config, "model.trunk", "resnet18", width=16)
  config.model.decoder_dim = 64
