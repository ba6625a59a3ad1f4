"""The contracts are enough: methods of other shapes run through the step as they stand.

Each is a few lines that know nothing of devices, and needs no change outside them.
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from semiseg_jax import contract
from semiseg_jax.augment.views import image_keys, labeled_view
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Aux
from semiseg_jax.losses.pixel import supervised_loss
from semiseg_jax.models.decision import most_likely
from tests.methods.laws import STEPS, assert_resumes, assert_same_on
from tests.tiny import batches_of, run_steps


@dataclasses.dataclass(frozen=True)
class TwoStudents(contract.Method):
  """Each of two networks learns from the labels and from what the other takes the rest for."""

  other_seed: int = 7
  weight: float = 0.5

  streams = ("labeled", "unlabeled")
  networks = trained = ("student", "other")
  scored = "other"

  def start(self, student, make, facts):
    return {"student": student, "other": make(self.other_seed)}, {"agreement": jnp.zeros(())}

  def targets(self, state, batch, key):
    images, labels = batch["unlabeled"]["image"], {}
    for name in self.networks:
      logits = state.run(name, images, train=False)[0].logits
      labels[name] = most_likely(state.forward[name].resize(logits, images.shape[1:3]))[0]
    return {"labeled": labeled_view(batch, key), "image": images, "label": labels}

  def loss(self, params, state, views, key):
    total, stats = 0.0, {}
    for name, teacher in (("student", "other"), ("other", "student")):
      network, stats[name] = state.forward[name], state.networks[name].batch_stats
      for view, label, weight in (
        (views["labeled"]["image"], views["labeled"]["label"], 1.0),
        (views["image"], views["label"][teacher], self.weight),
      ):
        outputs, stats[name] = network(params[name], stats[name], view, train=True)
        logits = network.resize(outputs.logits, label.shape[1:])
        total = total + weight * supervised_loss(logits, label, DATA_AXIS)
    same = (views["label"]["student"] == views["label"]["other"]).mean()
    return total, Aux({"agreement": same}, stats, extra=jax.lax.pmean(same, DATA_AXIS))

  def after(self, state, aux):
    return state.replace(method_state={"agreement": aux.extra})


@dataclasses.dataclass(frozen=True)
class PerturbedFeatures(contract.Method):
  """The network is to say the same of features with channels dropped, between encode and decode."""

  rate: float = 0.5

  streams = ("labeled", "unlabeled")

  def targets(self, state, batch, key):
    unlabeled = batch["unlabeled"]
    keys = image_keys(key, unlabeled["position"], 7)
    return {"labeled": labeled_view(batch, key), "image": unlabeled["image"], "keys": keys}

  def loss(self, params, state, views, key):
    network, (_, stats) = state.forward["student"], state.networks["student"]
    view, params = views["labeled"], params["student"]
    outputs, stats = network(params, stats, view["image"], train=True)
    logits = network.resize(outputs.logits, view["label"].shape[1:])
    supervised = supervised_loss(logits, view["label"], DATA_AXIS)
    size = views["image"].shape[1:3]
    features, stats = network.encode(params, stats, views["image"], train=True)
    plain, stats = network.decode(params, stats, features, size, train=True)
    noisy = tuple(self.dropped(x, views["keys"]) for x in features)
    outputs, stats = network.decode(params, stats, noisy, size, train=True)
    wanted = jax.lax.stop_gradient(jax.nn.softmax(plain.logits))
    consistency = jnp.square(jax.nn.softmax(outputs.logits) - wanted).mean()
    return supervised + consistency, Aux({"consistency": consistency}, {"student": stats})

  def dropped(self, x, keys):
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[-1:]))(keys)
    return x * kept[:, None, None] / (1 - self.rate)


METHODS = {"two students": TwoStudents(), "perturbed features": PerturbedFeatures()}


@pytest.mark.parametrize(
  "name", ["two students", pytest.param("perturbed features", marks=pytest.mark.slow)]
)
def test_law_of_n_devices(name):
  assert_same_on(4, METHODS[name])


@pytest.mark.parametrize("name", METHODS)
def test_exact_resume(name, tmp_path):
  assert_resumes(METHODS[name], tmp_path, devices=4)


def test_both_students_learn_and_stay_apart():
  method = METHODS["two students"]
  state, metrics = run_steps(method, 4, batches_of(method, STEPS))
  apart = jax.tree.map(
    lambda a, b: jnp.abs(a - b).max(), *(n.params for n in state.networks.values())
  )
  assert max(jax.tree.leaves(apart)) > 0.01
  assert 0 < float(state.method_state["agreement"]) == pytest.approx(float(metrics["agreement"]))
