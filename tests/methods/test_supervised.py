"""Training on labelled images alone: pytorch-segmentation's fork, replayed step by step."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from semiseg_jax.contract import Facts
from semiseg_jax.losses.labeled import LOSSES
from semiseg_jax.methods import supervised
from semiseg_jax.models.layers import BatchNorm, Conv, Maker
from semiseg_jax.models.network import Outputs, Segmenter, Variables, split_network
from semiseg_jax.models.normalization import Normalization
from semiseg_jax.runtime.mesh import make_mesh
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.training.start import Start
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import make_train_step
from tests import golden
from tests.compare import assert_same
from tests.golden import nhwc
from tests.models.torch_layout import to_trees
from tests.tiny import random_batch, run_steps, tiny_state

# What tests of every method need to know of this one.
SMALL = {"plain": {}, "zoo": {"augment": False, "second_pass": True}}

LOSS = {"rtol": 0, "atol": 1e-5}
STATE = {"rtol": 0, "atol": 1e-4}
IDENTITY = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
OURS = {"CrossEntropyLoss2d": "ce", "BCEWithLogitsLoss2d": "bce", "DiceLoss": "dice"}
SCHEDULES = {
  "Poly": {"name": "poly", "first": 1, "steps_per_epoch": 1, "floor": 0.0},
  "OneCycle": {"name": "one_cycle", "first": 1},
}


class StandIn(Segmenter):
  """The network of the recorded epochs, with its second classifier if it has one."""

  align_corners = False

  def __init__(self, classes: int, has_aux: bool, maker: Maker):
    conv = lambda *sizes, **options: Conv(*sizes, rng=maker.rng, **options)
    self.conv1, self.bn1 = conv(3, 6, 3, stride=2, padding=1), BatchNorm(6, axis_name="data")
    self.conv2 = conv(6, classes, 3, padding=1, use_bias=True)
    self.aux = conv(6, classes, 1, use_bias=True) if has_aux else None

  def encode(self, images, train, keys=None):
    return (jax.nn.relu(self.bn1(self.conv1(images), train)),)

  def decode(self, features, size, train, keys=None):
    x = features[-1]
    aux_logits = self.aux(x) if self.aux is not None and train else None
    return Outputs(self.conv2(x), aux_logits=aux_logits)


def variables_of(vector, prefix: str) -> Variables:
  keys = {k.removeprefix(prefix): v for k, v in vector.items() if k.startswith(prefix)}
  return Variables(*to_trees(keys))


@pytest.mark.parametrize(
  "about", golden.load_json("segmentation_zoo/trainer.json"), ids=lambda about: about["case"]
)
def test_recorded_epochs(about):
  """Losses, the weights and statistics at the end, and the loss of validating with these."""
  vector, case = golden.load("segmentation_zoo/trainer"), about["case"]
  start = variables_of(vector, f"{case}__init__")
  classes = len(start.params["conv2"]["bias"])
  module = StandIn(classes, "aux" in start.params, Maker(np.random.default_rng(0)))
  _, network = split_network(module, IDENTITY)
  config = {
    "name": "sgd", "learning_rate": 0.01, "nesterov": False, "weight_decay": 1e-4,
    "schedule": SCHEDULES[about["scheduler"]], "groups": (("^(conv1|bn1)", 0.1, None),),
  }  # fmt: skip
  steps, size = about["epochs"] * about["batches"], int(vector["batch_size"])
  optimizer = make_optimizer(config, steps, {"student": network})
  loss = OURS[about["loss"]]
  method = supervised.Method(supervised_loss=loss, augment=False, second_pass=True)
  facts, mesh = Facts(classes, steps, 6, 0, size, 0), make_mesh(jax.devices()[:1])
  state = make_state(Start(start, network, None), method, optimizer, facts, 0, mesh)
  step = make_train_step(method, optimizer, mesh)
  images, labels = nhwc(vector["images"]), golden.known(vector["targets"])
  rows = [slice(i * size, (i + 1) * size) for i in range(about["batches"])]
  for number in range(steps):
    own = rows[number % len(rows)]
    place = np.arange(size, dtype=np.int32)
    batch = {"labeled": {"image": images[own], "label": labels[own], "position": place}}
    state, metrics = step(state, batch)
    np.testing.assert_allclose(metrics["loss"], vector[f"{case}__iteration_loss"][number], **LOSS)
  end = Variables(*jax.tree.map(np.asarray, tuple(state.networks["student"])))
  close = lambda a, b: np.testing.assert_allclose(a, b, **STATE)
  jax.tree.map(close, end, variables_of(vector, f"{case}__final__"))
  found = []
  for own in rows:
    logits = network.resize(network(*end, images[own], False)[0].logits, labels.shape[1:])
    found.append(LOSSES[loss]()(logits, labels[own], 0, 1))
  np.testing.assert_allclose(np.mean(found), vector[f"{case}__val__summary"][0], **LOSS)


def test_without_the_second_pass_statistics_move_once():
  """By the same losses: the weights are those of the recorded run, the statistics are not."""
  batches = [random_batch(seed=seed, streams=("labeled",)) for seed in range(2)]
  once, _ = run_steps(supervised.Method(augment=False), 1, batches)
  twice, _ = run_steps(supervised.Method(augment=False, second_pass=True), 1, batches)
  # running means are what BatchNorm takes deviations from: rounding, and that alone, knows them
  assert_same(once.networks["student"].params, twice.networks["student"].params, 1e-6)
  (_, before), (_, after) = once.networks["student"], twice.networks["student"]
  assert np.abs(before["bn1"]["mean"] - after["bn1"]["mean"]).max() > 1e-3


def test_the_second_pass_is_one_of_the_updated_network():
  """In train mode, on the last of the batches that an update accumulates."""
  method, optimizer = supervised.Method(augment=False, second_pass=True), optax.sgd(0.1)
  plain = supervised.Method(augment=False)
  batches = [random_batch(seed=seed, streams=("labeled",)) for seed in range(2)]
  both = jax.tree.map(lambda *arrays: np.stack(arrays), *batches)
  ends = []
  for each in (plain, method):
    state, mesh = tiny_state(each, optimizer, 1)
    ends.append(make_train_step(each, optimizer, mesh, accumulate=2)(state, both)[0])
  seen = lambda state, images: state.run("student", images, train=True)[1]
  expected = jax.shard_map(seen, mesh=mesh, in_specs=P(), out_specs=P())
  found = ends[1].networks["student"].batch_stats
  assert_same(found, expected(ends[0], batches[-1]["labeled"]["image"]))
