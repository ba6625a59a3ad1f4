"""The original's training loop, replayed from its recorded augmentations; the law of N devices."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import pytest
from flax import nnx

from semiseg_jax import networks
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Facts
from semiseg_jax.labels import IGNORE
from semiseg_jax.methods import memory_bank
from semiseg_jax.models.layers import BatchNorm, Conv, Maker
from semiseg_jax.models.network import Outputs, Segmenter, Variables, split_network
from semiseg_jax.models.normalization import NORMALIZATIONS
from semiseg_jax.runtime.mesh import make_mesh
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.training.start import Start
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import make_train_step
from tests import golden
from tests.losses.banks import contents
from tests.models.torch_layout import to_trees
from tests.tiny import batches_of, run_steps, tiny_start

HEADS = 12  # their dimension in the recorded runs
LOSS = {"rtol": 1e-5, "atol": 1e-7}
STATE = {"rtol": 1e-5, "atol": 1e-5}


SMALL = {  # so that bank, mixing and contrast begin within a few steps
  "short": {
    "ramp_steps": 1, "bank_lead": 1, "threshold": 0.3, "head_dim": HEADS,
    "memory_per_class": 30,  # of 32 slots, so that 8 devices share them
  },
}  # fmt: skip
SMALL["alternate"] = {**SMALL["short"], "alternate": True}


class ToyNet(Segmenter):
  """Two convolutions and a classifier, as the recorded runs have it."""

  def __init__(self, num_classes: int, maker: Maker):
    rng = maker.rng
    self.conv1 = Conv(3, 8, 3, rng=rng, stride=2, padding=1)
    self.bn1 = BatchNorm(8, axis_name=DATA_AXIS, trained=False)
    self.conv2 = Conv(8, 8, 3, rng=rng, padding=1)
    self.bn2 = BatchNorm(8, axis_name=DATA_AXIS, trained=False)
    self.layer5 = Conv(8, num_classes, 1, rng=rng, use_bias=True)
    self.feature_dim = 8

  def encode(self, images: jax.Array, train: bool, keys: jax.Array | None = None):
    x = nnx.relu(self.bn1(self.conv1(images), train))
    return (nnx.relu(self.bn2(self.conv2(x), train)),)

  def decode(self, features, size, train: bool, keys: jax.Array | None = None) -> Outputs:
    return Outputs(self.layer5(features[0]), features=features[0])


def toy_module(num_classes: int) -> ToyNet:
  maker = Maker(np.random.default_rng(0), axis_name=DATA_AXIS)
  module = ToyNet(num_classes, maker)
  networks.add_heads(module, {"selectors": HEADS}, num_classes, maker)
  return module


def toy_network(num_classes: int, normalization: str):
  return split_network(toy_module(num_classes), NORMALIZATIONS[normalization])[1]


def toy_variables(num_classes: int) -> Variables:
  return split_network(toy_module(num_classes))[0]


@dataclasses.dataclass(frozen=True)
class Recorded(memory_bank.Method):
  """Takes the views that come with the batch instead of drawing them.

  labelled: gets the pseudo-labels and their confidence of every step, once it has run.
  """

  labelled: Callable = print

  def views(self, state, labeled, unlabeled, confidence, key):
    jax.debug.callback(self.labelled, unlabeled["label"], confidence)
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


def setting(case, alternate: bool) -> tuple[memory_bank.Method, Facts, dict]:
  """Method, facts and the optimiser's config of a recorded run."""
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
    head_dim=HEADS,
  )
  labeled, batch = number("labeled_samples"), number("batch")
  facts = Facts(
    classes, number("num_iterations"), labeled, number("total") - labeled, batch, batch // 2
  )
  optimizer = {
    "name": "sgd", "learning_rate": float(case["cfg.learning_rate_f64"]), "nesterov": False,
    "schedule": {"name": "poly", "steps_per_epoch": 1, "floor": 0.0},
  }  # fmt: skip
  return method, facts, optimizer


@golden.cases("memory_bank/train_steps*")
def test_recorded_run(case):
  alternate = "it0.unlabeled.raw_image" not in case  # the script for less memory
  method, facts, optimizer = setting(case, alternate)
  guesses = []
  method = dataclasses.replace(method, labelled=lambda *guess: guesses.append(guess))
  dataset = "cityscapes" if case["cfg.dataset_is_cityscapes"] else "pascal"
  channels = "bgr" if case["cfg.bgr"] else "rgb"
  network = toy_network(facts.num_classes, f"{dataset}_{channels}")
  mesh = make_mesh(jax.devices()[:1])
  optimizer = make_optimizer(optimizer, facts.steps, {"student": network})
  start = Start(variables(case, "init."), network, None)
  state = make_state(start, method, optimizer, facts, 0, mesh)
  step = make_train_step(method, optimizer, mesh)
  for number in range(facts.steps):
    it, batch = f"it{number}.", batch_of(case, number)
    state, metrics = step(state, batch)
    jax.effects_barrier()
    if it + "unlabeled.raw_label" in case:
      pseudo_label, confidence = guesses[number]
      np.testing.assert_array_equal(pseudo_label, batch["unlabeled"]["label"])
      np.testing.assert_allclose(confidence, case[it + "unlabeled.raw_probs"], **STATE)
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
  for class_id, rows in enumerate(contents(state.method_state.bank)):
    np.testing.assert_allclose(rows, case[f"final.bank.{class_id}"], **STATE)
  last = f"after_it{facts.steps - 1}."
  for ours, name in ((state.networks[n], f"{n}.") for n in method.networks):
    jax.tree.map(
      lambda a, b, name=name: np.testing.assert_allclose(a, b, **STATE, err_msg=name),
      ours,
      variables(case, last + name),
    )
  assert step._cache_size() == 1


def late_parts(params):
  return {name: params[name] for name in tiny_start(memory_bank.Method()).network.late}


def test_the_bank_is_shared_out_and_filled():
  method = memory_bank.Method(**SMALL["short"])
  state, metrics = run_steps(method, 8, batches_of(method, 4))
  rows, count = state.method_state.bank.rows, state.method_state.bank.count
  assert metrics["unlabeled_contrast"] > 0
  assert len(rows.sharding.device_set) == 8
  assert rows.addressable_data(0).shape[1] == 32 // 8 and count.max() == 30


@pytest.mark.slow
def test_every_switch_at_once_with_a_second_domain():
  method = memory_bank.Method(
    **SMALL["short"], use_teacher=False, memory_weights="rescaled", rank_order="descending",
    isotropic_blur=True, eight_bit_jitter=True, background=0,
  )  # fmt: skip
  state, metrics = run_steps(method, 8, batches_of(method, 4, domain=True))
  assert np.isfinite([float(value) for value in metrics.values()]).all()
  assert (state.method_state.bank.count > 0).any()
  assert int(state.method_state.tables.step) == 2  # of four, the two on the target domain


@pytest.mark.slow  # the rule itself is in tests/training/test_optimizers.py
def test_what_is_not_yet_used_is_not_decayed():
  method = memory_bank.Method(**SMALL["short"])
  start = tiny_start(method)
  section = {"name": "sgd", "weight_decay": 0.1, "schedule": {"name": "constant"}}
  optimizer = make_optimizer(section, 20, {"student": start.network})
  before = start.variables.params
  params = run_steps(method, 1, batches_of(method, 1), optimizer)[0].networks["student"].params
  jax.tree.map(np.testing.assert_array_equal, late_parts(params), late_parts(before))
  assert np.abs(params["conv1"]["kernel"] - before["conv1"]["kernel"]).max() > 0
  params = run_steps(method, 1, batches_of(method, 4), optimizer)[0].networks["student"].params
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), late_parts(params), late_parts(before))
  assert max(jax.tree.leaves(moved)) > 0
