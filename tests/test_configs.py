"""Every config holds the numbers of the original's sheet, and runs on any number of devices."""

import importlib
import pathlib
import re

import jax
import pytest

from configs import common
from data.blank import blank_dataset
from semiseg_jax.contract import Facts
from semiseg_jax.input.build import train_streams
from semiseg_jax.methods import make_method
from semiseg_jax.networks import NETWORKS
from semiseg_jax.planning.plan import abstract_batch, abstract_state
from semiseg_jax.runtime.mesh import idle_devices, make_mesh, sharing_devices
from semiseg_jax.training.batch import scale_batch
from semiseg_jax.training.setup import Run, build

CONFIGS = sorted(  # others of the folder hold what several of them share
  path.stem
  for path in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py")
  if "def get_config(" in path.read_text()
)
DEVICES = (1, 3, 4, 6, 8)
TRACED = (3, 8)  # of these: some devices, where one or two share a batch, and all
FULL_SIZE = ("city_memory_bank", "city_reco", "city_c3")  # a trunk of a hundred layers

# Crop, scale range, batches of the semi-supervised scripts, test size, minimum of classes.
SHEET = {
  "city_reco": ((512, 512), (1.0, 1.0), 2, (512, 1024), 12, 20),
  "pascal_reco": ((321, 321), (0.5, 1.5), 10, (513, 513), 3, 60),
  "sun_reco": ((321, 321), (0.5, 1.5), 5, (385, 513), 1, 50),
}


def get(name: str, arg: str | None = None):
  return importlib.import_module(f"configs.{name}").get_config(arg)


@pytest.fixture
def machine(monkeypatch):
  """Makes this one of so many devices."""
  there = jax.devices()

  def of(count: int) -> None:
    monkeypatch.setattr(jax, "devices", lambda: there[:count])
    for counted in ("device_count", "local_device_count"):
      monkeypatch.setattr(jax, counted, lambda: count)

  return of


def blank(config) -> list:
  """Stand-ins for the files of its datasets."""
  if config.data.name == "folder":
    config.data.name, config.evaluation.size = "toy_scenes", (96, 128)
  parts = (config.data, config.data.domain)
  return [blank_dataset(p.name, p.variant, (96, 128)) if p.name else None for p in parts]


def narrow(name: str):
  """The config with a trunk that is traced and compiled fast."""
  config = get(name)
  if "resnet18" in common.carriers(config.model.name):
    common.choose(config, "model.trunk", "resnet18")
  config.model.trunk.width = 4
  return config


def rows(config) -> dict[str, int]:
  """The batches that the config's run uses."""
  dataset, domain = blank(config)
  streams = train_streams(config, dataset, make_method(config.method).streams, domain)
  return {name: stream.batch for name, stream in streams.items()}


def for_all_devices(config) -> int:
  """The N of :batch=N that a run proposes; the config's own where it uses all devices."""
  batches = rows(config)
  line = idle_devices(make_mesh(sharing_devices([*batches.values()])), batches)
  return int(re.search(r":batch=(\d+)", line)[1]) if line else batches["labeled"]


def check_step(run: Run) -> None:
  """One update, traced but not run, makes a state like the one that it was given."""
  state = abstract_state(run)
  after, metrics = jax.eval_shape(run.train_step(), state, abstract_batch(run))
  same = lambda a, b: a.shape == b.shape and a.dtype == b.dtype
  assert jax.tree.all(jax.tree.map(same, after, state)) and metrics["loss"].shape == ()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_makes_its_method(name):
  config = get(name)
  assert "batch" in importlib.import_module(f"configs.{name}").__doc__
  method = make_method(config.method)
  assert set(config.method) == {"name", *method.__dataclass_fields__}


@pytest.mark.parametrize(
  "name", [pytest.param(n, marks=[] if n == "folder_reco" else pytest.mark.slow) for n in CONFIGS]
)
def test_every_config_steps_on_all_devices(name):
  """With its own crops and the batch that the run proposes for eight."""
  config = get(name) if name in FULL_SIZE else narrow(name)
  scale_batch(config, for_all_devices(config))
  run = build(config, *blank(config))
  assert run.mesh.size == 8
  check_step(run)


@pytest.mark.parametrize(
  "name", [pytest.param(n, marks=[] if n == "toy_reco" else pytest.mark.slow) for n in CONFIGS]
)
def test_every_config_steps_on_any_number_of_devices(name, machine):
  """With its own batch, on as many as share it out."""
  config, sizes = narrow(name), set()
  for count in DEVICES:
    machine(count)
    run = build(config, *blank(config))
    shares = [n for n in range(1, count + 1) if not any(b % n for b in rows(config).values())]
    assert run.mesh.size == max(shares)
    if count in TRACED and run.mesh.size not in sizes:
      sizes.add(run.mesh.size)
      check_step(run)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["toy_reco", "toy_c3"])  # of embeddings and of features
@pytest.mark.parametrize("network", [name for name, kind in NETWORKS.items() if not kind.OF_IMAGES])
def test_every_network_stands_in_for_another(network, name, machine):
  machine(1)
  config = get(name)
  common.choose(config, "model", network)
  config.model.trunk.width = 4
  if network == "fcn8" and name == "toy_reco":
    with pytest.raises(ValueError, match=r"'fcn8' .* no features .* representation"):
      build(config, *blank(config))
    return
  check_step(build(config, *blank(config)))


@pytest.mark.parametrize("name", ["toy_supervised", "toy_reco"])
def test_a_second_classifier_learns(name, machine):
  machine(1)
  config = get(name)
  common.choose(config, "model", "pspnet")
  config.model.trunk.width = 4
  run = build(config, *blank(config))
  _, metrics = jax.eval_shape(run.train_step(), abstract_state(run), abstract_batch(run))
  assert {"supervised_loss", "aux_loss"} <= metrics.keys()
  config.model.aux_head = False
  run = build(config, *blank(config))
  _, metrics = jax.eval_shape(run.train_step(), abstract_state(run), abstract_batch(run))
  assert "aux_loss" not in metrics


@pytest.mark.slow
@pytest.mark.parametrize("name", ["toy_memory_bank"])  # the folder's test compiles ReCo's
def test_compiles_for_all_devices(name):
  config = narrow(name)
  config.data.crop = (32, 32)
  scale_batch(config, for_all_devices(config))
  run = build(config, *blank(config))
  assert run.mesh.size == 8
  run.train_step().lower(abstract_state(run), abstract_batch(run)).compile()


# What :batch=N divides, by docs/scaling.md; it leaves all that is not named in these two.
IN_STEPS = {
  "training.steps", "training.checkpoint_every", "training.reload_best_after",
  "training.refresh_batch_stats", "training.stop_after", "evaluation.every",
  "optimizer.schedule.steps_per_epoch",
  "optimizer.schedule.warmup_steps", "method.ramp_steps", "method.bank_lead",
  "method.unlabeled_start", "method.consistency_ramp", "method.contrast_start",
  "method.contrast_ramp",
}  # fmt: skip
WITH_BATCH = {"data.labeled_batch", "data.unlabeled_batch", "data.domain.batch"}


def flat(config) -> dict[str, object]:
  leaves = jax.tree.leaves_with_path(config.to_dict(), is_leaf=lambda x: not isinstance(x, dict))
  return {".".join(part.key for part in path): value for path, value in leaves}


@pytest.mark.parametrize("name", CONFIGS)
def test_batch_for_all_devices_and_what_follows_it(name, machine):
  for count in DEVICES:
    machine(count)
    config, before = get(name), flat(get(name))
    scale_batch(config, for_all_devices(get(name)))
    after, used = flat(config), rows(config)
    assert not any(batch % count for batch in used.values())
    factor = after["data.labeled_batch"] / before["data.labeled_batch"]
    assert used == {stream: batch * factor for stream, batch in rows(get(name)).items()}
    for key in before.keys() - WITH_BATCH - {"optimizer.learning_rate"}:
      own = key.removeprefix("rounds.first.")  # the supervised round follows the same rule
      if own in WITH_BATCH or own == "optimizer.learning_rate":
        continue
      scales = own in IN_STEPS and before[key]
      assert after[key] == (max(1, round(before[key] / factor)) if scales else before[key]), key
    power = {"sgd": 1.0, "adam": 0.5, "adamw": 0.5}[before["optimizer.name"]]
    rate = before["optimizer.learning_rate"] * factor**power
    assert after["optimizer.learning_rate"] == pytest.approx(rate)


@pytest.mark.parametrize(("optimizer", "factor"), [("sgd", 4), ("adam", 2), ("adamw", 2)])
def test_learning_rate_of_four_times_the_batch(optimizer, factor):
  config = get("toy_supervised")
  common.choose(config, "optimizer", optimizer)
  before = config.optimizer.learning_rate
  scale_batch(config, 32)
  assert config.optimizer.learning_rate == pytest.approx(factor * before)


@pytest.mark.parametrize("batch", [0, 8, 12])
def test_batches_that_cannot_keep_their_proportion(batch):
  with pytest.raises(
    ValueError, match=rf"{batch}: .* 5 labeled \+ 2 unlabeled images .* at multiples of 5"
  ):
    scale_batch(get("city_memory_bank"), batch)


def test_a_batch_that_is_not_used_need_not_come_out_whole():
  config = get("toy_supervised")
  scale_batch(config, 9)
  assert (config.data.labeled_batch, config.training.steps) == (9, 1333)


@pytest.mark.parametrize("name", SHEET)
def test_numbers_of_the_original(name):
  crop, scale_range, batch, size, min_classes, labels = SHEET[name]
  config = get(name)
  assert config.data.crop == crop
  assert config.data.labeled_transform.scale_range == scale_range
  assert config.data.unlabeled_transform.scale_range == (1.0, 1.0)
  assert config.method.scale_range == scale_range
  assert config.data.labeled_batch == config.data.unlabeled_batch == batch
  assert config.evaluation.size == size and config.evaluation.batch == 4
  assert config.data.min_classes == min_classes and config.data.labeled == f"reco/{labels}_0"
  assert config.training.steps == 40_000
  optimizer, schedule = config.optimizer, config.optimizer.schedule
  assert (optimizer.learning_rate, optimizer.weight_decay) == (2.5e-3, 5e-4)
  assert optimizer.momentum == 0.9
  assert (schedule.steps_per_epoch, schedule.power, schedule.floor) == (200, 0.9, 1e-6)
  method = config.method
  assert (method.weak_threshold, method.strong_threshold, method.temperature) == (0.7, 0.97, 0.5)
  assert (method.num_queries, method.num_negatives, method.ema_decay) == (256, 512, 0.99)
  assert method.embedding_dim == 256 and make_method(method).scored == "teacher"
  model = config.model
  assert (model.name, model.trunk.name, model.output_stride) == ("deeplabv3p", "resnet101", 16)


# The original's JSON files, but for the split: dataset, labels, network, pretraining -> batch,
# learning rate, crop, quota, lengths of the class balancing's tables (labelled, unlabelled).
BANK_SHEET = {
  ("city", 100, "v2", "COCO"): (5, 2e-4, 512, 3, (20, 1437)),
  ("city", 100, "v2", "imagenet"): (5, 2e-4, 512, 3, (20, 1437)),
  ("city", 100, "v3", "imagenet"): (7, 4e-4, 512, 3, (14, 958)),
  ("city", 372, "v2", "COCO"): (5, 2e-4, 512, 1, (74, 1301)),
  ("city", 372, "v2", "imagenet"): (5, 2e-4, 512, 1, (74, 1301)),
  ("city", 372, "v3", "imagenet"): (7, 4e-4, 512, 1, (53, 867)),
  ("city", 744, "v2", "COCO"): (5, 2e-4, 512, 1, (148, 1115)),
  ("city", 744, "v2", "imagenet"): (5, 2e-4, 512, 1, (148, 1115)),
  ("city", 744, "v3", "imagenet"): (7, 4e-4, 512, 1, (106, 743)),
  ("pascal", 212, "v2", "COCO"): (14, 2e-4, 321, 7, None),
  ("pascal", 212, "v2", "imagenet"): (14, 2e-4, 321, 7, None),
  ("pascal", 212, "v3", "imagenet"): (20, 2e-4, 321, 7, None),
  ("pascal", 530, "v2", "COCO"): (14, 2e-4, 321, 1, None),
  ("pascal", 530, "v2", "imagenet"): (14, 2e-4, 321, 1, None),
  ("pascal", 530, "v3", "imagenet"): (20, 2e-4, 321, 1, None),
  ("pascal", 1323, "v2", "COCO"): (14, 2e-4, 321, 1, None),
  ("pascal", 1323, "v2", "imagenet"): (14, 2e-4, 321, 1, None),
  ("pascal", 1323, "v3", "imagenet"): (20, 2e-4, 321, 1, None),
}
BANK_NETWORKS = {
  ("v2", "COCO"): "deeplabv2_coco",
  ("v2", "imagenet"): "deeplabv2_imagenet",
  ("v3", "imagenet"): "deeplabv3plus",
}


@pytest.mark.parametrize("split", [0, 1, 2])
@pytest.mark.parametrize("row", BANK_SHEET, ids=str)
def test_numbers_of_the_memory_banks_files(row, split):
  dataset, labels, model, pretraining = row
  batch, rate, crop, quota, tables = BANK_SHEET[row]
  arg = f"labels={labels},split={split},model={model},pretraining={pretraining}"
  config = get(f"{dataset}_memory_bank", arg)
  data, optimizer, method = config.data, config.optimizer, make_method(config.method)
  assert (data.labeled_batch, data.unlabeled_batch) == (batch, batch // 2)
  assert data.crop == (crop, crop) and data.labeled == f"memory_bank/{labels}_{split}"
  halves = dataset == "city" and model == "v2"
  for transform in (data.labeled_transform, data.unlabeled_transform):
    assert dict(transform) == {"name": "memory_bank", "halve": halves}
  evaluation = config.evaluation
  assert evaluation.transform.name == ("memory_bank" if halves else "whole")
  full_size = {"city": (1024, 2048), "pascal": (513, 513)}[dataset]
  assert evaluation.size == ((512, 1024) if halves else full_size)
  assert evaluation.every == 1000 and evaluation.network is None and method.scored == "student"
  assert not evaluation.ties_replace
  assert config.seed == {"city": 5555, "pascal": 7}[dataset]
  assert config.model.name == BANK_NETWORKS[model, pretraining] and method.head_dim == 256
  assert config.model.trunk.name == ("resnet50" if model == "v3" else "resnet101")
  colors = {"city": "cityscapes", "pascal": "pascal"}[dataset]
  assert config.model.normalization == f"{colors}_{'bgr' if pretraining == 'COCO' else 'rgb'}"
  assert (optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay) == (rate, 0.9, 5e-4)
  schedule = optimizer.schedule
  assert (schedule.power, schedule.steps_per_epoch, schedule.floor) == (0.9, 1, 0.0)
  assert not optimizer.nesterov and config.training.steps == 150_000
  assert config.training.reload_best_after == 30_000  # a fifth
  assert config.training.refresh_batch_stats == 1000
  total = {"city": 2975, "pascal": 10582}[dataset]
  facts = Facts(19, 150_000, labels, total - labels, batch, batch // 2)
  assert method.elements(facts) == batch * quota
  memory = method.empty_memory(facts)
  found = memory.tables and (len(memory.tables.labeled), len(memory.tables.unlabeled))
  assert found == tables and memory.bank.rows.shape[1] >= 256
  assert method.background == (0 if dataset == "pascal" else -1)
  assert (method.warmup_rate, method.alternate, method.entropy_broadcast) == (10, False, False)


def test_the_memory_banks_variants():
  reduced = get("pascal_memory_bank", "split=2,reduced=true")
  assert reduced.data.crop == (256, 256) and reduced.training.steps == 300_000
  assert (reduced.data.labeled_batch, reduced.data.unlabeled_batch) == (8, 4)
  assert reduced.training.reload_best_after == 60_000
  method = make_method(reduced.method)
  assert method.elements(Facts(21, 300_000, 212, 10370, 8, 4)) == 56
  assert method.alternate and method.entropy_broadcast and method.warmup_rate == 1
  adapted = get("gta5_city_memory_bank", "labels=372")
  domain = adapted.data.domain
  assert (domain.name, domain.variant) == ("gta5", "full") and domain.transform.halve
  assert domain.batch == adapted.data.labeled_batch == 5
  assert adapted.model.name == "deeplabv2_imagenet" and adapted.data.labeled == "memory_bank/372_0"
  method = make_method(adapted.method)
  assert (method.labeled_mix, method.contrast_weight, method.warmup_rate) == (0.25, 0.2, 1.0)
  assert method.entropy_broadcast and method.domain_schedule == "alternate"
  assert not method.alternate and adapted.training.steps == 150_000
  assert get("toy_memory_bank", "contrast=false").method.contrast_weight == 0


@pytest.mark.parametrize("name", SHEET)
@pytest.mark.parametrize("base", ["method=supervised", "method=reco,base=sup"])
def test_supervised_scripts_double_the_batch_and_save_the_model(name, base):
  config = get(name, base)
  assert config.data.labeled_batch == 2 * SHEET[name][2]
  method = make_method(config.method)
  assert method.scored == "student" and method.streams == ("labeled",)


@pytest.mark.parametrize("partial", ["p0", "p1", "p5", "p25"])
@pytest.mark.parametrize("mixing", ["cutout", "cutmix", "classmix"])
def test_sparse_labels_use_every_image(partial, mixing):
  for name in ("city_reco", "pascal_reco"):
    config = get(name, f"partial={partial},mixing={mixing},split=2")
    assert config.data.labeled == "all" and config.data.partial == partial
    assert config.method.partial and config.method.mixing == mixing and config.seed == 2


def test_deeplabv2_has_stride_8():
  assert get("city_reco", "model=deeplabv2,labels=150,split=1").model.output_stride == 8
  assert get("city_reco", "labels=150,split=1").data.labeled == "reco/150_1"
  assert get("city_reco", "labels=0").data.labeled == "all"


@pytest.mark.parametrize(
  ("name", "arg", "message"),
  [
    ("sun_reco", "partial=p1", "no partial labels for SUN"),
    ("city_reco", "lables=20", "did you mean 'labels'"),
    ("city_reco", "labels=many", "takes a whole number"),
    ("city_reco", "method=fixmatch", "choose from 'supervised', 'mean_teacher', 'reco'"),
    ("city_reco", "base=self", "choose from 'semi', 'sup'"),
    ("folder_reco", "size=huge", "choose from 'full', 'small'"),
    ("city_memory_bank", "model=v4", "choose from 'v2', 'v3'"),
    ("city_memory_bank", "model=v3,pretraining=COCO", "has no COCO weights"),
    ("pascal_memory_bank", "pretraining=coco", "choose from 'COCO', 'imagenet'"),
    ("zoo", "json=kvaser", "json='kvaser': did you mean 'kvasir'"),
    ("zoo", "dataset=city", "dataset='city': choose from voc, voc_aug, cityscapes, "),
    ("zoo", "model=psp", "model='psp': did you mean 'pspnet'"),
    ("zoo", "model=deeplabv3p", "model='deeplabv3p': did you mean 'deeplabv3plus_zoo'"),
    ("zoo", "trunk=vgg16", "trunk='vgg16': choose from 'resnet18'"),
    ("zoo", "model=fcn8,trunk=resnet50", "trunk='resnet50': choose from 'vgg16', 'vgg16_bn'"),
    ("zoo", "loss=DiceLoss", "loss='DiceLoss': choose from 'abce'"),
    ("zoo", "schedule=cosine", "choose from 'poly', 'one_cycle'"),
    ("toy_zoo", "model=resnet", "model='resnet': did you mean"),
    ("toy_zoo", "model=enet,trunk=resnet18", "trunk='resnet18': choose from 'enet'"),
    ("toy_zoo", "loss=cross", "loss='cross': choose from"),
  ],
)
def test_bad_arguments(name, arg, message):
  with pytest.raises(ValueError, match=message):
    get(name, arg)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"name": "recoo"}, "did you mean 'reco'"),
    ({"temprature": 0.3}, "did you mean 'temperature'"),
    ({"mixing": "mixup"}, "choose from 'cutout', 'cutmix', 'classmix'"),
    ({"scope": "host"}, "choose from 'global', 'device'"),
    ({"temperature": "warm"}, "config.method.temperature"),
  ],
)
def test_bad_method_values(change, message):
  with pytest.raises(ValueError, match=message):
    make_method({**get("city_reco").method, **change})


@pytest.mark.parametrize(("name", "labels"), [("city_c3", 744), ("bdd_c3", None)])
def test_numbers_of_c3s_script_and_files(name, labels):
  """The script's, and for BDD100K, which has none, those of the authors' file."""
  config, is_city = get(name), name == "city_c3"
  data, method, optimizer, evaluation = (
    config.data, make_method(config.method), config.optimizer, config.evaluation
  )  # fmt: skip
  epoch, epochs = (250, 100) if is_city else (500, 40)  # num_samples 4000 or 8000 in batches of 16
  assert (data.labeled_batch, data.unlabeled_batch, data.replacement) == (16, 16, True)
  assert config.training.steps == epoch * epochs and evaluation.every == epoch
  assert data.crop == ((256, 512) if is_city else (512, 512)) and config.seed == 304
  assert data.labeled == (f"c3/{labels}_seed12345" if is_city else "1/30_1")
  for view in (data.labeled_transform, data.unlabeled_transform):
    assert (view.height, view.rotation, view.flip) == (512 if is_city else 720, 10, True)
  assert data.labeled_transform.scales == ((1.0,) if is_city else (0.75, 1.0, 1.25))
  assert data.unlabeled_transform.scales == (1.0,)
  unlabeled = data.unlabeled_transform
  assert (unlabeled.jitter, unlabeled.gray, unlabeled.rand_augment) == (1.0, 0.0, is_city)
  assert evaluation.size == ((512, 1024) if is_city else (720, 1280))
  assert evaluation.transform.base_size == (1024 if is_city else 1280)
  assert evaluation.monitor == "miou_zero" and config.training.stop_after == 200 * epoch
  model = config.model
  assert (model.name, model.trunk.name, model.freeze_bn) == (
    "deeplabv2_coco", "resnet101", "trunk"
  )  # fmt: skip
  assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("adam", 1.2e-4, 0.0)
  assert [group[1:] for group in optimizer.groups] == [(0.1, None, 4), (0.1, None, 3), (0.1, None)]
  schedule = optimizer.schedule
  assert (schedule.name, schedule.power, schedule.first, schedule.floor) == ("poly", 0.9, 1, 0.0)
  start = 9 * epoch
  assert (method.unlabeled_start, method.contrast_start) == (start, 0 if is_city else start)
  assert (method.consistency_weight, method.consistency_ramp) == (50, 16_000 / 4)
  assert (method.contrast, method.contrast_weight, method.contrast_ramp) == ("cross_set", 0.1, 250)
  assert (method.temperature, method.head, method.embedding_dim) == (0.15, "mlp", 256)
  assert (method.pixels, method.mining, method.mixing) == (20, True, "cross_set")
  assert (method.thresholds, method.gamma, method.threshold_decay) == (True, 0, 0.9)
  assert method.end_percent == (0.8 if is_city else 0.4)
  assert (method.ema_decay, method.kld_weight, method.gpus) == (0.99, 0, 4)
  baseline = get(name, "method=supervised")
  assert make_method(baseline.method).streams == ("labeled",)


def test_a_batch_of_the_supervised_round():
  config = get("voc_dst_cbc")
  scale_batch(config, 8)
  first = config.rounds.first
  assert (config.data.labeled_batch, config.data.unlabeled_batch) == (8, 8)
  assert first.data.labeled_batch == 16 and first.optimizer.learning_rate == 0.004
  assert (first.training.steps, first.evaluation.every) == (1950, 50)
