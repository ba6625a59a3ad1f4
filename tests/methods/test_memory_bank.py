"""The original's training loop, replayed from its recorded augmentations; the law of N devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from semiseg_jax.contract import Facts, Variables
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses import bank
from semiseg_jax.methods import memory_bank
from semiseg_jax.runtime.mesh import make_mesh, shard_batch
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import make_train_step, state_spec
from tests import golden
from tests.compare import assert_same
from tests.models.torch_layout import to_trees
from tests.tiny import HEADS, random_batch, toy_network
from tests.training.test_step import pmap_step

LOSS = {"rtol": 1e-5, "atol": 1e-7}
STATE = {"rtol": 1e-5, "atol": 1e-5}


@dataclasses.dataclass(frozen=True)
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
  """Both streams with the recorded views beside the plain images; zeros where a step has none."""
  it, number, size = f"it{step}.", int(case["cfg.batch"]), int(case["cfg.size"])
  read = {"image": levels, "label": labels, "confidence": lambda case, name: case[name]}
  names = {"image": "image", "label": "label", "confidence": "probs"}

  def part(stream: str, views: list[str], rows: int, keys: list[str]) -> dict:
    if f"{it}{stream}.raw_image" not in case:
      nothing = lambda *tail, dtype=np.float32: np.zeros((rows, size, size, *tail), dtype)
      plain = {"image": nothing(3), "label": nothing(dtype=np.uint8)}
      view = {**plain, "confidence": nothing()}
      view = {key: np.concatenate([view[key]] * len(views)) for key in keys}
    else:
      plain = {key: read[key](case, f"{it}{stream}.raw_{key}") for key in ("image", "label")}
      of_view = lambda key: [read[key](case, f"{it}{view}.{names[key]}") for view in views]
      view = {key: np.concatenate(of_view(key)) for key in keys}
    return {**plain, "position": np.arange(rows, dtype=np.int32), "view": view}

  return {
    "labeled": part("labeled", ["labeled"], number, ["image", "label"]),
    "unlabeled": part(
      "unlabeled", ["unlabeled1", "unlabeled2"], number // 2, ["image", "label", "confidence"]
    ),
  }


def variables(case, prefix: str) -> Variables:
  keys = {k.removeprefix(prefix): v for k, v in case.items() if k.startswith(prefix)}
  return Variables(*to_trees(keys))


def setting(case, alternate: bool) -> tuple[memory_bank.Method, Facts, object]:
  """Method, facts and optimiser of a recorded run."""
  number = lambda name: int(case[f"cfg.{name}"])
  classes = number("num_classes")
  is_city = bool(case["cfg.dataset_is_cityscapes"])
  method = Recorded(
    ramp_steps=number("ramp_up"),
    bank_lead=number("bank_lead"),
    class_balancing=is_city,
    quota_factor=1.0 if is_city else classes / 3,
    alternate=alternate,
    warmup_rate=1.0 if alternate else 10.0,
    entropy_broadcast=alternate,
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


@golden.cases("memory_bank/train_steps*")
def test_recorded_run(case, request):
  alternate = "less_memory" in request.node.callspec.id
  method, facts, optimizer = setting(case, alternate)
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
    if it + "unlabeled.raw_label" in case:
      pseudo_label, confidence = label_images(state, jnp.asarray(batch["unlabeled"]["image"]))
      np.testing.assert_array_equal(pseudo_label, batch["unlabeled"]["label"])
      np.testing.assert_allclose(confidence, case[it + "unlabeled.raw_probs"], atol=1e-5)
    state, metrics = step(state, batch)
    contrast = np.array([metrics["labeled_contrast"], metrics["unlabeled_contrast"]])
    found = {
      "loss.supervised": metrics["supervised_loss"],
      "loss.pseudo": metrics["pseudo_label_loss"],
      "loss.entropy_unscaled": metrics["entropy_loss"],
      "loss.contrastive_unscaled": contrast[~np.isnan(contrast)],
    }
    for name, value in found.items():
      if it + name in case:
        recorded = case[it + name].reshape(np.shape(value))
        np.testing.assert_allclose(value, recorded, **LOSS, err_msg=it + name)
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
  "ramp_steps": 1, "bank_lead": 1, "threshold": 0.3,
  "memory_per_class": 30,  # of 32 slots, so that 8 devices share them
}  # fmt: skip
OPTIMIZER = optax.sgd(0.05, momentum=0.9)


def fresh_state(method, devices: int):
  network, start = toy_network(5, "imagenet")
  mesh = make_mesh(jax.devices()[:devices])
  facts = Facts(5, 200, 16, 32, 8, 8, HEADS)
  return make_state(start, network, method, OPTIMIZER, facts, 0, mesh), mesh


def run_steps(
  devices: int, streams=("labeled", "unlabeled"), steps: int = 4, separate: bool = False, **values
):
  """The state after a few steps from one start, on the first `devices` virtual devices."""
  method = memory_bank.Method(**{**SHORT, **values})
  state, mesh = fresh_state(method, devices)
  step = make_train_step(method, OPTIMIZER, mesh, separate_passes=separate)
  for seed in range(steps):
    batch = random_batch(8, 32, 5, seed, streams=streams)
    state, metrics = step(state, shard_batch(batch, mesh))
  assert step._cache_size() == 1
  return state, metrics


@pytest.fixture(scope="module")
def on_one_device():
  return run_steps(1)[0]


@pytest.mark.parametrize(
  "devices", [pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow), 8]
)
def test_law_of_n_devices(devices, on_one_device):
  state, metrics = run_steps(devices)
  assert metrics["unlabeled_contrast"] > 0 and state.method_state.used.any()
  assert len(state.method_state.bank.rows.sharding.device_set) == devices
  assert state.method_state.bank.rows.addressable_data(0).shape[1] == 32 // devices
  assert state.method_state.bank.count.max() == 30
  assert_same_run(state, on_one_device)


def assert_same_run(left, right):
  for name in ("params", "batch_stats", "teacher"):
    assert_same(getattr(left, name), getattr(right, name), 2e-5)
  for ours, theirs in zip(
    *(bank.contents(s.method_state.bank) for s in (left, right)), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.slow
def test_same_steps_under_pmap(on_one_device):
  method = memory_bank.Method(**SHORT)
  state, _ = fresh_state(method, 4)
  step = pmap_step(method, OPTIMIZER, state, 4)
  for seed in range(4):
    state = step(state, random_batch(8, 32, 5, seed))
  assert_same_run(state, on_one_device)


def test_separate_passes_have_the_same_gradient(on_one_device):
  state, metrics = run_steps(1, separate=True)
  for name in ("params", "teacher"):
    assert_same(getattr(state, name), getattr(on_one_device, name), 2e-5)
  assert np.isfinite([float(value) for value in metrics.values()]).all()
  used = (state.method_state.used, on_one_device.method_state.used)
  np.testing.assert_array_equal(*used)


@pytest.mark.slow
def test_alternating_steps_are_the_same_on_two_devices():
  one, two = (run_steps(devices, alternate=True)[0] for devices in (1, 2))
  assert one.method_state.used.any()
  assert_same_run(two, one)


@pytest.mark.slow
def test_every_switch_at_once_with_a_second_domain():
  streams = ("labeled", "unlabeled", "domain")
  state, metrics = run_steps(
    8, streams, use_teacher=False, memory_weights="rescaled", rank_order="descending",
    isotropic_blur=True, eight_bit_jitter=True, background=0,
  )  # fmt: skip
  assert np.isfinite([float(value) for value in metrics.values()]).all()
  assert (state.method_state.bank.count > 0).any()
  tables = state.method_state.tables
  assert int(tables.step) == 2  # of four steps, the two on the target domain


def test_what_is_not_yet_used_is_not_decayed():
  state, _ = run_steps(1, steps=1)
  _, start = toy_network(5, "imagenet")
  for name in ("projection_head", "prediction_head", "selectors", "memory_selectors"):
    jax.tree.map(np.testing.assert_array_equal, state.params[name], start.params[name])
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), state.params["conv1"], start.params["conv1"]
  )
  assert moved["kernel"] > 0
  jax.tree.map(np.testing.assert_array_equal, state.params["bn1"], start.params["bn1"])


def test_bad_switches():
  for values in ({"memory_weights": "both"}, {"rank_order": "up"}, {"domain_schedule": "never"}):
    with pytest.raises(ValueError, match="choose from"):
      memory_bank.Method(**values)
  with pytest.raises(ValueError, match="ramp_steps=0 must be at least 1"):
    memory_bank.Method(ramp_steps=0)
