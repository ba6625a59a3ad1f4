"""DST-CBC and DMT: whole runs of the originals on a tiny network, replayed step by step."""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from semiseg_jax.contract import Facts
from semiseg_jax.evaluation.evaluate import make_evaluate_step
from semiseg_jax.evaluation.inference import whole
from semiseg_jax.evaluation.metrics import scores
from semiseg_jax.input import class_balance
from semiseg_jax.labels import IGNORE
from semiseg_jax.methods import dst_cbc
from semiseg_jax.models.decision import most_likely
from semiseg_jax.models.layers import BatchNorm, Conv, Maker
from semiseg_jax.models.network import Outputs, Segmenter, Variables, split_network
from semiseg_jax.models.normalization import Normalization
from semiseg_jax.runtime.mesh import make_mesh
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.training.start import Start
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import make_train_step
from tests import golden
from tests.compare import assert_same_bits
from tests.golden import nhwc
from tests.models.torch_layout import to_trees
from tests.tiny import batches_of, run_steps, tiny_start

SMALL = {
  "dynamic": {"gamma": 2.0},
  "stored": {"rule": "stored"},
  "mutual": {"rule": "mutual", "gamma": 2.0, "gamma2": 3.0},
  "flip": {"rule": "flip", "gamma": 2.0, "gamma2": 3.0},
  "online": {"rule": "online", "threshold": 0.3},
  "supervised": {"rule": None},
}
LOSS = {"rtol": 1e-5, "atol": 1e-6}
STATE = {"rtol": 1e-5, "atol": 1e-4}
STATS = ("disagreements", "won", "mean_weight", "unweighted_loss")  # of DMT's recorded steps
IDENTITY = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Backbone(nnx.Module):
  def __init__(self, maker: Maker):
    self.conv = Conv(3, 8, 3, rng=maker.rng, stride=2, padding=1)
    self.bn = BatchNorm(8, axis_name="data")

  def __call__(self, x, train):
    return nnx.relu(self.bn(self.conv(x), train))


class MiniNet(Segmenter):
  """The network of the recorded runs."""

  def __init__(self, num_classes: int, maker: Maker):
    self.backbone = Backbone(maker)
    self.classifier = Conv(8, num_classes, 3, rng=maker.rng, padding=1, use_bias=True)

  def encode(self, images, train, keys=None):
    return (self.backbone(images, train),)

  def decode(self, features, size, train, keys=None):
    return Outputs(self.classifier(features[-1]))


def variables_of(case, prefix: str) -> Variables:
  keys = {k.removeprefix(prefix): v for k, v in case.items() if k.startswith(prefix)}
  return Variables(*to_trees(keys))


def slices(images: int, size: int) -> list[slice]:
  """An epoch's batches as they were recorded: in order, the last one smaller."""
  return [slice(start, start + size) for start in range(0, images, size)]


class Recorded:
  """One recorded run: a network, its data, and steps as the original made them."""

  def __init__(self, case, method: dst_cbc.Method):
    self.case, self.method, self.done = case, method, 0
    self.classes = len(case["init.classifier.bias"])
    _, self.network = split_network(
      MiniNet(self.classes, Maker(np.random.default_rng(0))), IDENTITY
    )
    self.mesh = make_mesh(jax.devices()[:1])
    self.evaluate_step = make_evaluate_step(self.network, self.classes, self.mesh)

  def begin(self, variables: Variables, rate: str, steps: int) -> None:
    """A fresh optimiser and schedule for so many steps; rate: what the vector calls it."""
    config = {
      "name": "sgd", "learning_rate": float(self.case[rate]), "nesterov": False,
      "weight_decay": float(self.case["weight_decay"]),
      "schedule": {"name": "poly", "steps_per_epoch": 1, "floor": 0.0},
    }  # fmt: skip
    optimizer = make_optimizer(config, steps, {"student": self.network})
    facts = Facts(self.classes, steps, 1, 1, 1, 1)
    start = Start(variables, self.network, None)
    self.state = make_state(start, self.method, optimizer, facts, 0, self.mesh)
    self.step_fn = make_train_step(self.method, optimizer, self.mesh)

  @property
  def variables(self) -> Variables:
    return Variables(*jax.tree.map(np.array, tuple(self.state.networks["student"])))

  def learn(self, **streams) -> dict:
    """The next update, on {"labeled": (images, labels), "unlabeled": (images, labels, confidence)}:
    its rate, its loss and, where they were recorded, the state after it are the original's."""
    names = ("image", "label", "confidence")
    batch = {
      name: dict(zip(names, (nhwc(images), *maps), strict=False))
      for name, (images, *maps) in streams.items()
    }
    self.state, metrics = self.step_fn(self.state, batch)
    rate = self.state.opt_state.hyperparams["learning_rate"]
    np.testing.assert_allclose(rate, self.case["step_lr"][self.done], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], self.case["step_loss"][self.done], **LOSS)
    self.done += 1
    if f"after{self.done}.classifier.bias" in self.case:
      self.assert_state(self.variables, f"after{self.done}.")
    return jax.device_get(metrics)

  def epochs(self, maps: tuple, steps: int) -> Iterator[dict]:
    """The metrics of so many updates on all unlabelled images with these maps, and labelled ones in
    turn."""
    case = self.case
    labeled = slices(len(case["labeled_image"]), int(case["labeled_batch"]))
    unlabeled = slices(len(case["unlabeled_image"]), int(case["pseudo_batch"]))
    rows = zip(itertools.cycle(labeled), itertools.cycle(unlabeled), strict=True)
    for own, other in itertools.islice(rows, steps):
      yield self.learn(
        labeled=(case["labeled_image"][own], case["labeled_label"][own].astype(int)),
        unlabeled=(case["unlabeled_image"][other], *(m[other] for m in maps)),
      )

  def assert_state(self, variables: Variables, prefix: str) -> None:
    close = lambda a, b: np.testing.assert_allclose(a, b, **STATE, err_msg=prefix)
    jax.tree.map(close, variables, variables_of(self.case, prefix))

  def validate(self, variables: Variables) -> list[float]:
    """Pixel accuracy and mIoU in percent."""
    batch = {"image": nhwc(self.case["val_image"]), "label": self.case["val_label"].astype(int)}
    found = scores(np.asarray(self.evaluate_step(*variables, batch).confusion))
    return [100 * found.accuracy, 100 * found.miou]

  def assert_validated(self, step: int) -> None:
    """As good as the original after a step, if that was validated."""
    for row in self.case["validation"]:
      if row[0] == step:
        np.testing.assert_allclose(self.validate(self.variables), row[1:], atol=0.05)


def pseudo_labels(run: Recorded, variables: Variables, ratio: float, version: str):
  """(thresholds, labels, confidence) of all unlabelled images."""
  case, size = run.case, tuple(run.case["train_size"].tolist())
  logits = whole(run.network, variables, jnp.asarray(nhwc(case["unlabeled_image"])), size)
  label, confidence = map(np.asarray, most_likely(logits))
  if version == "scale":
    parts = [x.reshape(len(x), -1)[:, ::16].reshape(-1) for x in (label, confidence)]
  else:  # the stride runs on through a batch
    each = int(case["labeling_batch"])
    starts = range(0, len(label), each)
    parts = [
      np.concatenate([x[i : i + each].reshape(-1)[::16] for i in starts])
      for x in (label, confidence)
    ]
  found = class_balance.exact_thresholds(*parts, run.classes, ratio, version)
  if version == "published":
    return found, np.asarray(class_balance.divided(jax.nn.softmax(logits), found)), confidence
  is_kept = class_balance.kept(label, confidence, found)
  return found, np.where(is_kept, label, IGNORE), confidence


@pytest.mark.parametrize("version", class_balance.VERSIONS)
def test_recorded_rounds(version):
  """All rounds: labels by the best network so far, which the next one starts from."""
  for case in golden.vectors(f"dst_cbc/trace_{version}*").values():
    run = Recorded(case, dst_cbc.Method(gamma=float(case["gamma"])))
    every, best = int(case["val_every"]), variables_of(case, "init.")
    epoch = len(slices(len(case["unlabeled_image"]), int(case["pseudo_batch"])))
    score, validations = run.validate(best)[1], []
    for number, epochs in enumerate(case["epochs"].tolist()):
      ratio = float(case["label_ratio"][number])
      thresholds, labels, _ = pseudo_labels(run, best, ratio, version)
      np.testing.assert_allclose(thresholds, case["thresholds"][number], rtol=0, atol=1e-5)
      assert (labels != case["pseudo"][number]).mean() <= 1e-3
      np.testing.assert_allclose(
        (labels != IGNORE).mean(), case["labeled_ratio"][number], atol=1e-3
      )
      steps = epochs * epoch
      run.begin(best, "st_lr", steps)
      for step, _ in enumerate(run.epochs((case["pseudo"][number].astype(int),), steps), 1):
        if step % every == every - 1 or step == steps - 1:
          found = run.validate(run.variables)
          validations.append([number, step, *found])
          if found[1] > score:
            score, best = found[1], run.variables
    # of two rows of one step the second is of the best network, loaded again
    wanted = {(row[0], row[1]): row[2:] for row in case["validation"].tolist()[::-1]}
    for number, step, *found in validations:
      np.testing.assert_allclose(found, wanted[number, step], atol=0.05)
    np.testing.assert_allclose(score, case["best_miou"], atol=0.05)
    run.assert_state(best, "final.")
    assert run.done == len(case["step_loss"])


@golden.cases("dst_cbc/trace_supervised*")
def test_recorded_supervised_stage(case):
  run, steps = Recorded(case, dst_cbc.Method(rule=None)), len(case["step_loss"])
  run.begin(variables_of(case, "init."), "lr", steps)
  rows = itertools.cycle(slices(len(case["image"]), int(case["batch"])))
  for step, own in enumerate(itertools.islice(rows, steps), 1):
    run.learn(labeled=(case["image"][own], case["label"][own].astype(int)))
    run.assert_validated(step)
  run.assert_state(run.variables, "final.")


@golden.cases("dst_cbc/trace_dmt*")
def test_recorded_phase_of_dmt(case):
  """On the recorded labels, which the labeller makes too."""
  gammas = {"gamma": float(case["gamma1"]), "gamma2": float(case["gamma2"])}
  run, steps = Recorded(case, dst_cbc.Method(rule="mutual", **gammas)), len(case["step_loss"])
  thresholds, labels, confidence = pseudo_labels(
    run, variables_of(case, "labeler."), float(case["label_ratio"]), "scale"
  )
  np.testing.assert_allclose(thresholds, case["thresholds"], rtol=0, atol=1e-5)
  assert (labels != case["pseudo"][..., 0]).mean() <= 1e-3
  np.testing.assert_allclose(confidence, case["pseudo"][..., 1], atol=1e-5)
  run.begin(variables_of(case, "init."), "lr", steps)
  maps = case["pseudo"][..., 0].astype(int), case["pseudo"][..., 1]
  for step, metrics in enumerate(run.epochs(maps, steps), 1):
    found, wanted = [metrics[name] for name in STATS], case["step_stats"][step - 1]
    counted = wanted >= 0  # without gammas the original does not count
    np.testing.assert_allclose(np.array(found)[counted], wanted[counted], rtol=1e-5)
    run.assert_validated(step)
  run.assert_state(run.variables, "final.")


@golden.cases("dst_cbc/trace_online*")
def test_recorded_online_run(case):
  threshold = float(case["threshold"]) + 1e-4  # as the original adds it
  run, steps = (
    Recorded(case, dst_cbc.Method(rule="online", threshold=threshold)),
    len(case["step_loss"]),
  )
  run.begin(variables_of(case, "init."), "lr", steps)
  unread = np.zeros(case["online_labels"].shape, int)  # the labels are the network's own
  assert len(list(run.epochs((unread,), steps))) == steps
  run.assert_state(run.variables, "final.")


def test_without_a_label_nothing_moves():
  method = dst_cbc.Method()
  (batch,) = batches_of(method, 1)
  for stream in batch.values():
    stream["label"] = np.full_like(stream["label"], IGNORE)
  state, metrics = run_steps(method, 1, [batch])
  assert np.isnan(metrics["loss"]) and metrics["gradient_norm"] == 0
  assert_same_bits(state.networks["student"].params, tiny_start(method).variables.params)


def config_of(pseudo_labels: str | None = None, rounds: int = 0, domain: str = "") -> dict:
  data = {"pseudo_labels": pseudo_labels, "domain": {"name": domain}}
  return {"data": data, "rounds": {"count": rounds}}


def test_what_does_not_fit_together():
  with pytest.raises(ValueError, match="there are none: set"):
    dst_cbc.Method().check(config_of())
  with pytest.raises(ValueError, match="learns from one domain"):
    dst_cbc.Method().check(config_of("labels", domain="gta5"))
  for rule in (None, "online"):
    dst_cbc.Method(rule=rule).check(config_of())
  dst_cbc.Method().check(config_of("labels"))
  dst_cbc.Method().check(config_of(rounds=5))
