"""UniMatch V2, FixMatch and their supervised baseline: recorded runs replayed step by step."""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.augment import channels
from semiseg_jax.augment.mix import mix_reversed
from semiseg_jax.contract import Facts
from semiseg_jax.convert import families
from semiseg_jax.convert.assign import leaves_of, slots_of, tensor_at
from semiseg_jax.methods import fixmatch, supervised, unimatch_v2
from semiseg_jax.models.network import Variables
from semiseg_jax.runtime.mesh import make_mesh
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.training.start import Start
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import make_train_step
from tests import golden
from tests.models.unimatch import network_of, stride_of, weights_of

RUNS = golden.vectors("unimatch_v2/train_*")
LOSS, CONFIDENCE, GRADIENT = 2e-5, 1e-5, 2e-4
MOVE = 2e-3  # of rate times steps, to which parameters agree, but for
SHARE, ROUNDED = 1e-3, 0.5  # of them, whose gradients are near rounding: half of it
LAST_BIT = 1.2e-7


def recorded_view(self, weak, unlabeled, key, number):
  image = unlabeled[f"strong{number + 1}"].astype(jnp.float32)
  return mix_reversed({**weak, "image": image}, unlabeled[f"box{number + 1}"] == 0)


@dataclasses.dataclass(frozen=True)
class FixMatch(fixmatch.Method):
  strong_view = recorded_view


@dataclasses.dataclass(frozen=True)
class UniMatch(unimatch_v2.Method):
  strong_view = recorded_view

  def targets(self, state, batch, key):
    drawn = {name: batch["unlabeled"][name] for name in ("coins", "untouched")}
    return super().targets(state, batch, key) | drawn

  def perturb(self, features, views, key):
    coins = {features[0].shape[-1]: views["coins"]}
    with (
      mock.patch.object(channels, "draw_coins", lambda *_: coins),
      mock.patch.object(channels, "draw_untouched", lambda *_: views["untouched"]),
    ):
      return super().perturb(features, views, key)


def method_of(case):
  loss = "ce"
  if str(case["cfg.criterion"]) == "OHEM":
    threshold, kept = float(case["cfg.ohem_thresh_f64"]), int(case["cfg.ohem_min_kept"])
    loss = f"ohem(threshold={threshold},min_kept={kept})"
  name = str(case["cfg.method"])
  if name == "supervised":
    return supervised.Method(supervised_loss=loss, augment=False)
  kind = {"fixmatch": FixMatch, "unimatch_v2": UniMatch}[name]
  return kind(strong_threshold=float(case["cfg.conf_thresh_f64"]), supervised_loss=loss)


def batch_of(case, step: int):
  get = lambda name: case[f"step{step}.{name}"]
  image = golden.nhwc(get("labeled.image_level"))
  rows = np.arange(len(image), dtype=np.int32)
  batch = {"labeled": {"image": image, "label": get("labeled.label"), "position": rows}}
  if f"step{step}.unlabeled.weak_level" in case:
    unlabeled = {
      "image": golden.nhwc(get("unlabeled.weak_level")),
      "label": get("unlabeled.ignore_mask"),
      "position": rows,
    }
    for number in (1, 2):
      if f"step{step}.unlabeled.box{number}" in case:
        unlabeled[f"strong{number}"] = golden.nhwc(get(f"unlabeled.strong{number}_level"))
        unlabeled[f"box{number}"] = get(f"unlabeled.box{number}")
    if f"step{step}.draw_coin" in case:
      unlabeled["coins"] = get("draw_coin") > 0
      unlabeled["untouched"] = np.isin(rows, get("draw_permutation")[: int(get("num_kept"))])
    batch["unlabeled"] = unlabeled
  return batch


@pytest.mark.parametrize("name", RUNS)
def test_recorded_steps(name):
  case, tensors = RUNS[name], weights_of(name)
  variables, network = network_of(case, tensors, int(case["cfg.num_classes"]))
  method, steps = method_of(case), int(case["cfg.total_iters"])
  rate, factor = float(case["cfg.lr_f64"]), float(case["cfg.lr_multi_f64"])
  section = {
    "name": "adamw",
    "learning_rate": rate,
    "groups": ((r"^(?!trunk)", factor, None),),
    "schedule": {"name": "poly", "first": -1, "steps_per_epoch": 1, "floor": 0.0},
  }
  optimizer = make_optimizer(section, steps, {"student": network})
  rows = int(case["cfg.batch_size"])
  facts = Facts(int(case["cfg.num_classes"]), steps, 16, 16, rows, rows)
  mesh = make_mesh(jax.devices()[:1])
  start = Start(variables, network, lambda seed: variables)
  state = make_state(start, method, optimizer, facts, 0, mesh)
  step = make_train_step(method, optimizer, mesh)
  for number in range(int(case["cfg.num_steps"])):
    batch = batch_of(case, number)
    get = lambda key, number=number: case[f"step{number}.{key}"]
    if "unlabeled" in batch:
      check_teacher(state, batch, get, case, number)
    state, metrics = step(state, batch)
    recorded = {"loss": "loss"}
    if "unlabeled" in batch:
      recorded |= {"supervised_loss": "loss_x", "unsupervised_loss": "loss_u"}
      recorded["confident_share"] = "mask_ratio"
    for key, other in recorded.items():
      np.testing.assert_allclose(metrics[key], get(other), rtol=LOSS, atol=LOSS, err_msg=key)
  assert step._cache_size() == 1
  for network_name in method.networks:
    check_parameters(case, tensors, network_name, state.networks[network_name])


def check_teacher(state, batch, get, case, number):
  outputs, _ = state.run("teacher", jnp.float32(batch["unlabeled"]["image"]), train=False)
  logits = state.forward["teacher"].resize(outputs.logits, batch["unlabeled"]["image"].shape[1:3])
  probs = jax.nn.softmax(logits)
  np.testing.assert_array_equal(probs.argmax(-1), get("teacher_label"))
  confidence = np.asarray(probs.max(-1))
  if f"step{number}.teacher_conf" in case:
    recorded = get("teacher_conf")
  else:
    recorded, confidence = get("teacher_conf_sampled"), confidence[:, ::3, ::3]
  np.testing.assert_allclose(confidence, recorded, rtol=0, atol=CONFIDENCE)


def check_parameters(case, tensors, name, variables: Variables):
  """Against the recorded vector; what never had a gradient stays as it was, to the bit."""
  variables = Variables(*jax.tree.map(np.asarray, tuple(variables)))
  slots, leaves = slots_of(families.named("unimatch_v2"), variables), leaves_of(variables)
  rate, steps = float(case["cfg.lr_f64"]), int(case["cfg.num_steps"])
  untouched = set(case["parameters_without_gradient"].tolist())
  off = total = 0
  for i, key in enumerate(tensors):
    found = tensor_at(leaves, slots[key])
    if key in untouched and name == "student":  # an average of equal numbers is rounded
      np.testing.assert_array_equal(found, tensors[key], err_msg=key)
    if key.endswith("qkv.bias"):  # of keys: their gradient is 0 but for rounding
      continue
    start, end = case["final.offsets"][i : i + 2]
    recorded = case[f"final.{name}"][start:end]
    found = found.ravel()[:: stride_of(found.size, 200)]
    factor = 1.0 if key.startswith("backbone.") else float(case["cfg.lr_multi_f64"])
    reach = rate * factor * steps
    difference = abs(found - recorded)
    last_bits = LAST_BIT * steps * np.maximum(abs(recorded), 1)  # decay and step are added apart
    assert (difference <= ROUNDED * reach + last_bits).all(), key
    off += (difference > MOVE * reach + last_bits).sum()
    total += found.size
  assert off <= SHARE * total, (off, total)
