"""Toy street scenes and a small network, shared by the toy configs: minutes on two CPU cores."""

from ml_collections import ConfigDict

from configs import common

SCALE_RANGE = (0.75, 1.5)


def toy_config(arg: str | None) -> ConfigDict:
  """Arguments: labels (0 = all), split (seed of the labelled set and of the run), partial."""
  args = common.parse(arg, labels=8, split=0, partial="")
  config = common.base_config()
  common.choose_labels(config, args)
  config.data.name = "toy_scenes"
  config.data.min_classes = 3
  config.data.crop = (96, 96)
  config.data.labeled_transform.scale_range = SCALE_RANGE
  config.data.labeled_batch = config.data.unlabeled_batch = 4
  common.choose(config, "model.trunk", "resnet18", width=16)
  config.model.decoder_dim = 64
  config.optimizer.learning_rate = 0.05
  config.optimizer.schedule.steps_per_epoch = 50
  config.training.steps = 1_500
  config.training.checkpoint_every = 500
  config.evaluation.every = 250
  config.evaluation.batch = 10
  config.evaluation.size = (96, 128)
  return config
