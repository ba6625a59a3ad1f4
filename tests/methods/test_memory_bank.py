"""The original's training loop, replayed from its recorded augmentations; the law of N devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from semiseg_jax.augment.levels import NORMALIZATIONS
from semiseg_jax.contract import Facts, Network, Variables
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses import bank
from semiseg_jax.methods import memory_bank
from semiseg_jax.models import networks
from semiseg_jax.models.layers import BatchNorm, Conv
from semiseg_jax.models.rows import RowHead
from semiseg_jax.models.selectors import ClassSelectors
from semiseg_jax.training.mesh import make_mesh, shard_batch
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import make_train_step, state_spec
from tests import golden
from tests.models.torch_layout import to_trees
from tests.tiny import random_batch
from tests.training.test_step import assert_same

HEADS = 12  # width of the recorded network's heads
LOSS = {"rtol": 1e-5, "atol": 1e-7}
STATE = {"rtol": 1e-5, "atol": 1e-5}


class ToyNet(nnx.Module):
  """The recorded runs' network: two convolutions, a classifier, the heads on rows."""

  def __init__(self, num_classes: int, axis_name: str | None = "data"):
    rng = np.random.default_rng(0)
    heads = {"rng": rng, "axis_name": axis_name}
    self.conv1 = Conv(3, 8, 3, rng=rng, stride=2, padding=1)
    self.bn1 = BatchNorm(8, axis_name=axis_name, trained=False)
    self.conv2 = Conv(8, 8, 3, rng=rng, padding=1)
    self.bn2 = BatchNorm(8, axis_name=axis_name, trained=False)
    self.layer5 = Conv(8, num_classes, 1, rng=rng, use_bias=True)
    self.projection_head = RowHead(8, HEADS, **heads)
    self.prediction_head = RowHead(HEADS, HEADS, **heads)
    self.selectors = ClassSelectors(num_classes, HEADS, **heads)
    self.memory_selectors = ClassSelectors(num_classes, HEADS, **heads)

  def __call__(self, images: jax.Array, train: bool, keys: jax.Array | None = None):
    del keys
    x = nnx.relu(self.bn1(self.conv1(images), train))
    x = nnx.relu(self.bn2(self.conv2(x), train))
    return networks.Outputs(self.layer5(x), features=x)


def toy_network(num_classes: int, normalization: str) -> tuple[Network, Variables]:
  module = ToyNet(num_classes)
  graphdef, *variables = networks.split(module)
  leaves = jax.tree.leaves_with_path(networks.frozen(module))
  frozen = tuple(tuple(entry.key for entry in path) for path, value in leaves if value)
  return Network(graphdef, NORMALIZATIONS[normalization], frozen), Variables(*variables)


class Recorded(memory_bank.Method):
  """Takes the views that come with the batch instead of drawing them."""

  def views(self, state, labeled, unlabeled, confidence, key):
    return {
      "labeled": {**labeled["view"], "keys": None},
      "unlabeled": {**unlabeled["view"], "keys": None},
    }


def levels(case, name: str) -> np.ndarray:
  """Images as RGB levels [B,H,W,3]."""
  images = golden.nhwc(case[name]).astype(np.float32)
  return images[..., ::-1] if case["cfg.bgr"] else images


def labels(case, name: str) -> np.ndarray:
  values = case[name].astype(np.int32)
  return np.where(values == case["cfg.ignore_label"], IGNORE, values).astype(np.uint8)


def batch_of(case, step: int) -> dict:
  def part(name: str, views: list[str]) -> dict:
    view = {"image": "image", "label": "label", "confidence": "probs"}
    view = {k: v for k, v in view.items() if f"{views[0]}.{v}" in case}
    read = {"image": levels, "label": labels, "confidence": lambda case, name: case[name]}
    join = lambda key, field: np.concatenate([read[key](case, f"{v}.{field}") for v in views])
    raw = levels(case, f"{name}.raw_image")
    return {
      "image": raw,
      "label": labels(case, f"{name}.raw_label"),
      "position": np.arange(len(raw), dtype=np.int32),
      "view": {key: join(key, field) for key, field in view.items()},
    }

  it = f"it{step}"
  return {
    "labeled": part(f"{it}.labeled", [f"{it}.labeled"]),
    "unlabeled": part(f"{it}.unlabeled", [f"{it}.unlabeled1", f"{it}.unlabeled2"]),
  }


def variables(case, prefix: str) -> Variables:
  keys = {k.removeprefix(prefix): v for k, v in case.items() if k.startswith(prefix)}
  return Variables(*to_trees(keys))


def setting(case) -> tuple[memory_bank.Method, Facts, object]:
  """Method, facts and optimiser of a recorded run."""
  number = lambda name: int(case[f"cfg.{name}"])
  classes = number("num_classes")
  is_city = bool(case["cfg.dataset_is_cityscapes"])
  method = Recorded(
    ramp_steps=number("ramp_up"),
    bank_lead=number("bank_lead"),
    class_balancing=is_city,
    quota_factor=1.0 if is_city else classes / 3,
  )
  labeled, batch = number("labeled_samples"), number("batch")
  facts = Facts(
    classes, number("num_iterations"), labeled, number("total") - labeled, batch, batch // 2, HEADS
  )
  optimizer = ConfigDict(
    {"learning_rate": float(case["cfg.learning_rate_f64"]), "momentum": 0.9, "nesterov": False,
     "weight_decay": 5e-4, "steps_per_epoch": 1, "power": 0.9, "floor": 0.0}
  )  # fmt: skip
  return method, facts, make_optimizer(optimizer, facts.steps)


@golden.cases("memory_bank/train_steps")
def test_recorded_run(case):
  method, facts, optimizer = setting(case)
  network, _ = toy_network(
    facts.num_classes, "cityscapes_bgr" if case["cfg.bgr"] else "cityscapes_rgb"
  )
  mesh = make_mesh(jax.devices()[:1])
  state = make_state(variables(case, "init."), network, method, optimizer, facts, 0, mesh)
  step = make_train_step(method, optimizer, mesh)
  label_images = jax.jit(
    jax.shard_map(
      lambda state, images: method.pseudo_labels(state, images, None)[:2],
      mesh=mesh, in_specs=(state_spec(method, state), P("data")), out_specs=P("data"),
    )
  )  # fmt: skip
  for number in range(facts.steps):
    it, batch = f"it{number}.", batch_of(case, number)
    pseudo_label, confidence = label_images(state, jnp.asarray(batch["unlabeled"]["image"]))
    np.testing.assert_array_equal(pseudo_label, batch["unlabeled"]["label"])
    np.testing.assert_allclose(confidence, case[it + "unlabeled.raw_probs"], atol=1e-5)
    state, metrics = step(state, batch)
    found = {
      "loss.supervised": metrics["supervised_loss"],
      "loss.pseudo": metrics["pseudo_label_loss"],
      "loss.entropy_unscaled": metrics["entropy_loss"],
    }
    for name, value in found.items():
      np.testing.assert_allclose(value, case[it + name][0], **LOSS, err_msg=it + name)
    if it + "loss.contrastive_unscaled" in case:
      contrast = [metrics["labeled_contrast"], metrics["unlabeled_contrast"]]
      np.testing.assert_allclose(contrast, case[it + "loss.contrastive_unscaled"], **LOSS)
    if it + "bank_rows" in case:
      rows = np.maximum(case[it + "bank_rows"], 0)
      np.testing.assert_array_equal(state.method_state.bank.count, rows)
  for class_id, rows in enumerate(bank.contents(state.method_state.bank)):
    np.testing.assert_allclose(rows, case[f"final.bank.{class_id}"], atol=1e-5)
  last = f"after_it{facts.steps - 1}."
  for ours, name in ((state.student, "student."), (state.teacher, "teacher.")):
    jax.tree.map(
      lambda a, b, name=name: np.testing.assert_allclose(a, b, **STATE, err_msg=name),
      ours,
      variables(case, last + name),
    )
  assert step._cache_size() == 1


SHORT = {  # so that bank, mixing and contrast begin within a few steps
  "ramp_steps": 1, "bank_lead": 1, "threshold": 0.3, "memory_per_class": 32,
}  # fmt: skip
OPTIMIZER = optax.sgd(0.05, momentum=0.9)


def run_steps(devices: int, streams=("labeled", "unlabeled"), steps: int = 4, **values):
  """The state after a few steps from one start, on the first `devices` virtual devices."""
  method = memory_bank.Method(**{**SHORT, **values})
  network, start = toy_network(5, "imagenet")
  mesh = make_mesh(jax.devices()[:devices])
  facts = Facts(5, 200, 16, 32, 8, 8, HEADS)
  state = make_state(start, network, method, OPTIMIZER, facts, 0, mesh)
  step = make_train_step(method, OPTIMIZER, mesh)
  for seed in range(steps):
    batch = random_batch(8, 32, 5, seed, streams=streams)
    state, metrics = step(state, shard_batch(batch, mesh))
  assert step._cache_size() == 1
  return state, metrics


@pytest.fixture(scope="module")
def on_one_device():
  return run_steps(1)[0]


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_law_of_n_devices(devices, on_one_device):
  state, metrics = run_steps(devices)
  assert metrics["unlabeled_contrast"] > 0 and state.method_state.used.any()
  assert len(state.method_state.bank.rows.sharding.device_set) == devices
  assert state.method_state.bank.rows.addressable_data(0).shape[1] == 32 // devices
  left, right = state, on_one_device
  for name in ("params", "batch_stats", "teacher"):
    assert_same(getattr(left, name), getattr(right, name), 2e-5)
  for ours, theirs in zip(
    *(bank.contents(s.method_state.bank) for s in (left, right)), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
