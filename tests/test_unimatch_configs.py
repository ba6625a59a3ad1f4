"""UniMatch V2's experiments, by the numbers of their sheet."""

import re

import pytest

from configs import common
from data.blank import blank_dataset
from semiseg_jax import networks
from semiseg_jax.convert import families
from semiseg_jax.convert.assign import slots_of
from semiseg_jax.input.build import train_streams
from semiseg_jax.losses.labeled import Ohem, make_loss
from semiseg_jax.methods import make_method
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.transforms.unimatch import UniMatch, UniMatchUnlabeled
from tests import golden
from tests.test_configs import get

# Classes, crop, epochs, global batch, labelled images and steps of an epoch by split; supervised:
# images listed, global batch.
SHEET = {
  "voc": (21, 518, 60, 16, {"92": 655, "183": 650, "366": 638, "732": 615, "1464": 570}, 3000, 32),
  "city": (19, 798, 180, 8, {"1_16": 349, "1_8": 325, "1_4": 279, "1_2": 186}, 3000, 16),
  "ade20k": (
    150, 518, 60, 8,
    {"1_64": 2487, "1_32": 2447, "1_16": 2368, "1_8": 2210, "1_4": 1895, "1_2": 1263}, 6000, 16,
  ),
  "coco": (81, 518, 20, 16, {"1_32": 7162}, 30_000, 32),
}  # fmt: skip
SIZES = {"s": (64, (48, 96, 192, 384)), "g": (384, (1536,) * 4)}
SCHEDULES = golden.load("unimatch_v2/schedules")


@pytest.mark.parametrize("name", SHEET)
def test_numbers_of_the_sheet(name):
  classes, crop, epochs, rows, splits, listed, doubled = SHEET[name]
  for labels, epoch in splits.items():
    config = get(f"{name}_unimatch", f"labels={labels}")
    assert config.evaluation.every == config.training.checkpoint_every == epoch
    assert config.training.steps == epochs * epoch
    assert config.data.labeled == f"unimatch/{labels}"
  assert config.data.labeled_batch == config.data.unlabeled_batch == rows
  assert config.data.crop == (crop, crop)
  method = make_method(config.method)
  assert (method.strong_threshold, method.ema_decay, method.VIEWS) == (0.95, 0.996, 2)
  assert method.complementary_dropout and method.scored == "teacher"
  loss = make_loss(method.supervised_loss)
  if name == "city":  # 200,000 of a GPU's two crops
    assert isinstance(loss, Ohem) and (loss.threshold, loss.min_kept) == (0.7, 4 * 200_000)
    assert config.evaluation.window == (798, 798) and not config.evaluation.own_size
  else:
    assert method.supervised_loss == "ce" and config.evaluation.window is None
    assert config.evaluation.own_size
  assert not config.model.freeze_trunk and config.evaluation.every_network
  assert config.evaluation.monitor == "miou_zero" and config.evaluation.batch == 1
  supervised = get(f"{name}_unimatch", "method=supervised")
  assert supervised.data.labeled_batch == doubled
  assert supervised.training.steps == epochs * ((listed // 4) // (doubled // 4))
  assert make_method(supervised.method).networks == ("student",)
  dataset = blank_dataset(config.data.name, config.data.variant, (32, 32))
  assert dataset.info.num_classes == classes
  streams = train_streams(config, dataset, method.streams)
  assert type(streams["labeled"].transform) is UniMatch
  assert type(streams["unlabeled"].transform) is UniMatchUnlabeled
  assert streams["labeled"].transform.scales == (0.5, 2.0)
  rows_of = {name: len(stream.source) for name, stream in streams.items()}
  assert sum(rows_of.values()) == len(dataset.train)


def test_rates_of_the_recorded_schedules():
  """The lengths of runs are those by which the original's rates were recorded."""
  lengths = dict(zip(SCHEDULES["names"].tolist(), SCHEDULES["total_iters"].tolist(), strict=True))
  of = {
    "voc_92": ("voc", "92"),
    "cityscapes_1_16": ("city", "1_16"),
    "ade20k_1_16": ("ade20k", "1_16"),
  }
  for name, (config, labels) in of.items():
    assert get(f"{config}_unimatch", f"labels={labels}").training.steps == lengths[name]


@pytest.mark.parametrize("size", SIZES)
def test_sizes(size):
  config = get("voc_unimatch", f"size={size}")
  description = networks.make(
    {key: config.model[key] for key in ("name", "trunk", "output_stride")}
  )
  assert (description.decoder_dim, description.project_dims) == SIZES[size]


@pytest.mark.parametrize("frozen", [False, True])
def test_groups_of_the_optimiser(frozen):
  """The head's rate is 40 times the encoder's; what never has a gradient is left out."""
  recorded = golden.load_json("unimatch_v2/param_groups_small.json")
  config = get("voc_unimatch")
  assert config.optimizer.learning_rate == 5e-6 and config.optimizer.weight_decay == 0.01
  ((pattern, factor, decay),) = config.optimizer.groups
  assert (factor, decay) == (40.0, None)
  manifest = golden.load_json("unimatch_v2/real_small.manifest.json")
  variables, network = networks.build(
    {"name": "dpt", "num_classes": 21, "freeze_trunk": frozen, "trunk": {"name": "dinov2_small"}}
  )
  slots = slots_of(families.named("unimatch_v2"), variables)
  assert set(slots) == set(manifest)
  never = {key for key, slot in slots.items() if slot.path[1:] in network.frozen}
  groups = {True: set(), False: set()}
  for key, slot in slots.items():
    groups[bool(re.search(pattern, ".".join(slot.path[1:])))].add(key)
  of_all, of_frozen = recorded["fine_tuned"], recorded["lock_backbone"]
  parts = [set(group["parameters"]) for group in (of_frozen[0] if frozen else of_all[0], of_all[1])]
  assert groups[True] == parts[1]
  if frozen:
    assert not parts[0] and groups[False] <= never
  else:
    assert groups[False] == parts[0]
    assert never == {
      "backbone.mask_token",
      *(key for key in slots if "refinenet4.resConfUnit1" in key),
    }
  make_optimizer(config.optimizer, 10, {"student": network}).init({"student": variables.params})


def test_what_leaves_nothing_to_learn_from():
  with pytest.raises(ValueError, match="labels=all leaves no image unlabelled"):
    get("voc_unimatch", "labels=all")
  config = get("voc_unimatch", "labels=all,method=supervised")
  assert config.data.labeled == "all" and config.training.steps == 60 * (2646 // 8)
  with pytest.raises(ValueError, match="labels='1_16': choose from 92, 183"):
    get("voc_unimatch", "labels=1_16")


def test_any_method_on_a_vit():
  """A ViT under DeepLab's head, for methods of other papers."""
  config = get("toy_reco")
  common.choose(config, "model", "deeplabv3p")
  common.choose(config, "model.trunk", "vit_tiny", width=4, depth=4)
  model = networks.make({key: config.model[key] for key in ("name", "trunk", "decoder_dim")})
  assert model.trunk.taps == (0, 1, 2, 3)


@pytest.mark.parametrize("model", ["dpt", "deeplabv3p"])
def test_the_toy_baseline_differs_in_its_method_alone(model):
  """docs/results.md compares the two: one network, optimiser, length, labelled batch and views."""
  config = get("toy_unimatch", f"model={model}")
  baseline = get("toy_unimatch", f"model={model},method=supervised")
  assert config.model.name == model
  assert (config.method.name, baseline.method.name) == ("unimatch_v2", "supervised")
  assert not baseline.method.augment  # as UniMatch V2's labelled images
  height, width = config.data.crop
  assert height >= 96 and width >= 128 // 14 * 14  # places mean the same as in whole images
  baseline.method = config.method
  baseline.evaluation.every_network = config.evaluation.every_network
  assert baseline.to_dict() == config.to_dict()


def test_the_toy_refuses_other_networks():
  with pytest.raises(ValueError, match="model='unet': choose from 'dpt', 'deeplabv3p'"):
    get("toy_unimatch", "model=unet")
