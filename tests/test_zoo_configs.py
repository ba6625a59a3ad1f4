"""configs/zoo.py and toy_zoo.py by the numbers of pytorch-segmentation's files."""

import math
import re

import jax
import pytest

from configs import zoo
from semiseg_jax.methods import make_method
from semiseg_jax.models.normalization import NORMALIZATIONS
from semiseg_jax.networks import NETWORKS
from semiseg_jax.training.setup import build
from tests.test_configs import blank, get

# The originals' JSON files: dataset, training images, network and trunk, batch, crop and size of
# validation, base_size, epochs, loss, monitor, epochs between validations, the second pass.
ZOO_SHEET = {
  "upstream": (
    "cityscapes", 2975, "pspnet", "resnet50", 8, 380, 480, 400, 80, "ce", "miou_zero", 5, False
  ),
  "train_aug": (
    "pascal", 10582, "pspnet", "resnet50", 32, 380, 480, 400, 80, "ce", "miou_zero", 5, False
  ),
  "fork": (
    "cityscapes", 2975, "pspnet", "resnet50", 6, 512, 512, None, 300, "dice", None, 10, True
  ),
  "cityscales": (
    "cityscapes", 2975, "deeplabv3plus_zoo", "resnet101", 6, 512, 512, None, 300, "lovasz_softmax",
    None, 10, True,
  ),
  "voc": (
    "pascal", 1464, "pspnet", "resnet50", 8, 380, 480, None, 300, "bce_dice", "loss", 10, True
  ),
  "kvasir": ("kvasir", 880, "fcn8", "vgg16", 8, 320, 320, None, 150, "ce", None, 10, True),
}  # fmt: skip


def test_every_file_of_the_zoo_is_compared():
  assert ZOO_SHEET.keys() == zoo.FILES.keys()


@pytest.mark.parametrize("name", ZOO_SHEET)
def test_numbers_of_the_zoos_files(name):
  (
    dataset, images, network, trunk, batch, crop, size, base_size, epochs, loss, monitor, every,
    second_pass,
  ) = ZOO_SHEET[name]  # fmt: skip
  config = get("zoo", f"json={name}")
  data, model, training, evaluation = config.data, config.model, config.training, config.evaluation
  assert (data.name, data.labeled_batch, data.crop) == (dataset, batch, (crop, crop))
  assert not data.replacement and data.variant == ("full" if dataset == "cityscapes" else None)
  assert data.labeled == ("voc/train" if name == "voc" else "all")
  assert dict(data.labeled_transform) == {
    "name": "zoo", "base_size": base_size, "scale": True, "rotate": True, "flip": True,
    "blur": False, "fill": 0,
  }  # fmt: skip
  assert dict(evaluation.transform) == {"name": "zoo", "size": size}
  assert evaluation.size == (size, size) and not evaluation.ties_replace
  assert (model.name, model.trunk.name, model.trunk.width) == (network, trunk, WIDTHS[trunk])
  method = make_method(config.method)
  assert (method.supervised_loss, method.aux_weight) == (loss, 0.4)
  assert (method.augment, method.second_pass) == (False, second_pass)
  if network == "pspnet":
    assert model.trunk.deep_stem and model.aux_head and model.output_stride == 8
  epoch = math.ceil(images / batch)
  assert training.steps == epochs * epoch and evaluation.every == every * epoch
  assert training.checkpoint_every == 10 * epoch
  assert training.stop_after == (10 * every * epoch if monitor else None)
  assert evaluation.monitor == (monitor or "miou_zero") and training.reload_best_after is None
  assert evaluation.classes == {"voc": "1-20", "kvasir": "1"}.get(name)
  assert (evaluation.temperature, evaluation.threshold) == (1.0, 0.5)
  optimizer, schedule = config.optimizer, config.optimizer.schedule
  assert (optimizer.name, optimizer.nesterov) == ("sgd", False)
  assert (optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay) == (0.01, 0.9, 1e-4)
  assert (schedule.name, schedule.power, schedule.first) == ("poly", 0.9, 1)
  assert (schedule.steps_per_epoch, schedule.floor, schedule.warmup_steps) == (1, 0.0, 0)
  assert training.accumulate == 1 and training.refresh_batch_stats == 0


WIDTHS = dict.fromkeys(("resnet50", "resnet101", "vgg16"), 64)
# Paths of one parameter of each part and whether it learns ten times as slowly.
ZOO_GROUPS = {
  "fcn8": {
    "trunk.stage1.0.kernel": True, "trunk.stage5.4.bias": True, "conv6.kernel": True,
    "conv7.bias": True, "classifier.kernel": True, "adj_pool3.kernel": False,
    "adj_pool4.bias": False, "up_output.kernel": False,
  },
  "unet": {"trunk.start_conv.0.kernel": False, "classifier.bias": False},
  "segnet": {"trunk.stage1.0.kernel": False, "stage1_decoder.0.kernel": False},
  "enet": {"trunk.initial.conv.kernel": False, "classifier.kernel": False},
}  # fmt: skip
OF_TRUNK = {"trunk.conv1.kernel": True, "classifier.bias": False}


@pytest.mark.parametrize("model", zoo.MODELS)
def test_groups_of_the_zoos_networks(model):
  """Every other network's trunk alone; each one's weights are all in the optimiser."""
  config = get("zoo", f"model={model}")
  slow = [pattern for pattern, *rest in config.optimizer.groups if rest == [0.1, None]]
  assert len(slow) == len(config.optimizer.groups)
  for path, is_slow in ZOO_GROUPS.get(model, OF_TRUNK).items():
    assert any(re.search(pattern, path) for pattern in slow) == is_slow, path


# How each loader's images are prepared, its number of images, classes, and whose colours.
ZOO_DATA = {
  "voc": ("pascal", None, 1464, 21, "zoo_voc"),
  "voc_aug": ("pascal", None, 10582, 21, "zoo_voc"),
  "cityscapes": ("cityscapes", "full", 2975, 19, "zoo_cityscapes"),
  "ade20k": ("ade20k", None, 20210, 150, "zoo_ade20k"),
  "cocostuff": ("cocostuff", "164k", 118287, 182, "zoo_cocostuff"),
  "cocostuff10k": ("cocostuff", "10k_513", 9000, 182, "zoo_cocostuff"),
  "kvasir": ("kvasir", None, 880, 2, "zoo_ade20k"),
}


def test_every_dataset_of_the_zoo_is_compared():
  assert ZOO_DATA.keys() == zoo.DATASETS.keys()


@pytest.mark.parametrize("name", ZOO_DATA)
def test_data_of_the_zoo(name):
  dataset, variant, images, classes, colors = ZOO_DATA[name]
  config = get("zoo", f"dataset={name}")
  assert (config.data.name, config.data.variant) == (dataset, variant)
  assert config.training.steps == 80 * math.ceil(images / 32)
  assert config.model.normalization == colors and NORMALIZATIONS[colors].unit
  (found, _) = blank(config)
  assert found.info.num_classes == classes
  if config.data.labeled == "all":
    assert len(found.train) == images


def test_what_is_named_stands_instead_of_what_a_file_says():
  config = get("zoo", "json=voc,dataset=voc_aug,model=upernet,trunk=resnet34,loss=zoo_focal")
  assert (config.data.name, config.data.labeled) == ("pascal", "all")
  assert (config.model.name, config.model.trunk.name) == ("upernet", "resnet34")
  assert config.method.supervised_loss == "zoo_focal" and config.method.second_pass
  assert config.training.steps == 300 * 1323  # 10,582 in batches of 8
  cycle = get("zoo", "schedule=one_cycle").optimizer.schedule
  assert (cycle.name, cycle.first, cycle.rise) == ("one_cycle", 1, 0.3)
  assert (cycle.divide, cycle.divide_end, cycle.momenta) == (25, 1e4, (0.85, 0.95))


@pytest.mark.slow
@pytest.mark.parametrize("network", [name for name, kind in NETWORKS.items() if not kind.OF_IMAGES])
def test_every_network_is_built_for_the_toy(network):
  """Narrow; that each of them steps is tested above."""
  config = get("toy_zoo", f"model={network}")
  run = build(config, *blank(config))
  assert run.start.model["name"] == network
  assert sum(x.size for x in jax.tree.leaves(run.start.variables.params)) < 5e6
