"""Every config loads, holds the numbers of the original's sheet, and names a method that exists."""

import importlib
import pathlib

import jax
import numpy as np
import pytest

from semiseg_jax.contract import Facts, TrainState
from semiseg_jax.methods import make_method
from semiseg_jax.training.mesh import make_mesh
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.training.setup import check, make_network
from semiseg_jax.training.step import make_train_step

CONFIGS = sorted(
  path.stem
  for path in (pathlib.Path(__file__).parents[1] / "configs").glob("*_*.py")
  if path.stem != "__init__"
)

# Crop, scale range, batches of the semi-supervised scripts, test size, minimum of classes.
SHEET = {
  "city_reco": ((512, 512), (1.0, 1.0), 2, (512, 1024), 12, 20),
  "pascal_reco": ((321, 321), (0.5, 1.5), 10, (513, 513), 3, 60),
  "sun_reco": ((321, 321), (0.5, 1.5), 5, (385, 513), 1, 50),
}


def get(name: str, arg: str | None = None):
  return importlib.import_module(f"configs.{name}").get_config(arg)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_makes_its_method(name):
  config = get(name)
  method = make_method(config.method)
  assert set(config.method) == {"name", *method.__dataclass_fields__}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_steps(name):
  """One update at the config's full size, traced but not run."""
  config = get(name)
  method, optimizer = make_method(config.method), make_optimizer(config.optimizer, 10)
  check(config, method)
  variables, forward = make_network(config, 19, method)
  facts = Facts(19, 10, 40, 80, config.data.labeled_batch, config.data.unlabeled_batch, 256)
  state = TrainState(
    np.int32(0), *variables, variables if method.uses_teacher else None,
    jax.eval_shape(optimizer.init, variables.params), method.init(facts), jax.random.PRNGKey(0),
    forward, facts,
  )  # fmt: skip
  shapes = jax.eval_shape(lambda: state)

  def part(rows):
    image = jax.ShapeDtypeStruct((rows, *config.data.crop, 3), np.uint8)
    label = jax.ShapeDtypeStruct((rows, *config.data.crop), np.uint8)
    return {"image": image, "label": label, "position": jax.ShapeDtypeStruct((rows,), np.int32)}

  batch = {"labeled": part(config.data.labeled_batch)}
  if method.uses_unlabeled:
    batch["unlabeled"] = part(config.data.unlabeled_batch)
  if config.data.source.name:
    batch["source"] = part(config.data.source.batch)
  step = make_train_step(method, optimizer, make_mesh(jax.devices()[:1]))
  after, metrics = jax.eval_shape(step, shapes, batch)
  same = lambda a, b: a.shape == b.shape and a.dtype == b.dtype
  assert jax.tree.all(jax.tree.map(same, after, shapes)) and metrics["loss"].shape == ()


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
  assert config.training.steps == 40_000 and config.optimizer.steps_per_epoch == 200
  optimizer = config.optimizer
  assert (optimizer.learning_rate, optimizer.weight_decay) == (2.5e-3, 5e-4)
  assert (optimizer.momentum, optimizer.power, optimizer.floor) == (0.9, 0.9, 1e-6)
  method = config.method
  assert (method.weak_threshold, method.strong_threshold, method.temperature) == (0.7, 0.97, 0.5)
  assert (method.num_queries, method.num_negatives, method.ema_decay) == (256, 512, 0.99)
  model = config.model
  assert (model.name, model.backbone, model.embedding_dim) == ("deeplabv3p", "resnet101", 256)
  assert model.output_stride == 16


@pytest.mark.parametrize("name", SHEET)
@pytest.mark.parametrize("base", ["method=supervised", "method=reco,base=sup"])
def test_supervised_scripts_double_the_batch_and_save_the_model(name, base):
  config = get(name, base)
  assert config.data.labeled_batch == 2 * SHEET[name][2]
  assert config.evaluation.network == "student"
  assert not make_method(config.method).uses_unlabeled


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
    ("city_reco", "labels=many", "takes a int"),
    ("city_reco", "method=fixmatch", "choose from supervised, mean_teacher, reco"),
    ("city_reco", "base=self", "choose from semi, sup"),
    ("folder_reco", "size=huge", "choose from full, small"),
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
