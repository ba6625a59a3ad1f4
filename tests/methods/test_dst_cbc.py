"""DST-CBC and DMT: whole runs of the originals on a tiny network, replayed step by step."""

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
from tests.golden import nhwc
from tests.models.torch_layout import to_trees

SMALL = {
  "dynamic": {"gamma": 2.0},
  "stored": {"rule": "stored"},
  "mutual": {"rule": "mutual", "gamma": 2.0, "gamma2": 3.0},
  "flip": {"rule": "flip", "gamma": 2.0, "gamma2": 3.0},
  "online": {"rule": "online", "threshold": 0.3},
  "supervised": {"rule": None},
}
LOSS = {"rtol": 2e-5, "atol": 1e-6}
STATE = {"rtol": 1e-5, "atol": 1e-4}
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


class Recorded:
  """One recorded run: a network, its data, and steps as the original made them."""

  def __init__(self, case, method: dst_cbc.Method):
    self.case, self.method = case, method
    self.classes = len(case["init.classifier.bias"])
    _, self.network = split_network(
      MiniNet(self.classes, Maker(np.random.default_rng(0))), IDENTITY
    )
    self.mesh = make_mesh(jax.devices()[:1])
    self.evaluate_step = make_evaluate_step(self.network, self.classes, self.mesh)

  def begin(self, variables: Variables, rate: float, steps: int) -> None:
    """A fresh optimiser and schedule for so many steps."""
    config = {
      "name": "sgd", "learning_rate": rate, "nesterov": False,
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

  def step(self, **streams) -> dict:
    """Updates on {"labeled": (images, labels), "unlabeled": (images, labels, confidence)}."""
    names = ("image", "label", "confidence")
    batch = {
      name: dict(zip(names, (nhwc(images), *maps), strict=False))
      for name, (images, *maps) in streams.items()
    }
    self.state, metrics = self.step_fn(self.state, batch)
    return jax.device_get(metrics)

  def validate(self, variables: Variables) -> list[float]:
    """Pixel accuracy and mIoU in percent."""
    batch = {"image": nhwc(self.case["val_image"]), "label": self.case["val_label"].astype(int)}
    found = scores(np.asarray(self.evaluate_step(*variables, batch).confusion))
    return [100 * found.accuracy, 100 * found.miou]


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
    labeled, every = len(case["labeled_image"]), int(case["val_every"])
    sizes = int(case["labeled_batch"]), int(case["pseudo_batch"])
    starts = range(0, len(case["unlabeled_image"]), sizes[1])
    best = variables_of(case, "init.")
    score, validations, losses = run.validate(best)[1], [], []
    for number, epochs in enumerate(case["epochs"].tolist()):
      ratio = float(case["label_ratio"][number])
      thresholds, labels, _ = pseudo_labels(run, best, ratio, version)
      np.testing.assert_allclose(thresholds, case["thresholds"][number], rtol=0, atol=1e-5)
      assert (labels != case["pseudo"][number]).mean() <= 1e-3
      np.testing.assert_allclose(
        (labels != IGNORE).mean(), case["labeled_ratio"][number], atol=1e-3
      )
      steps, turn = epochs * len(starts), 0
      run.begin(best, float(case["st_lr"]), steps)
      for step in range(1, steps + 1):
        start = starts[(step - 1) % len(starts)]
        own, other = slice(turn, turn + sizes[0]), slice(start, start + sizes[1])
        turn = 0 if turn + sizes[0] >= labeled else turn + sizes[0]
        metrics = run.step(
          labeled=(case["labeled_image"][own], case["labeled_label"][own].astype(int)),
          unlabeled=(case["unlabeled_image"][other], case["pseudo"][number][other].astype(int)),
        )
        losses.append(metrics["loss"])
        if step % every == every - 1 or step == steps - 1:
          found = run.validate(run.variables)
          validations.append([number, step, *found])
          if found[1] > score:
            score, best = found[1], run.variables
    np.testing.assert_allclose(losses, case["step_loss"], rtol=1e-4)
    # of two rows of one step the second is of the best network, loaded again
    wanted = {(row[0], row[1]): row[2:] for row in case["validation"].tolist()[::-1]}
    for number, step, *found in validations:
      np.testing.assert_allclose(found, wanted[number, step], atol=0.05)
    np.testing.assert_allclose(score, case["best_miou"], atol=0.05)
    close = lambda a, b: np.testing.assert_allclose(a, b, **STATE)
    jax.tree.map(close, best, variables_of(case, "final."))


def test_recorded_supervised_stage():
  for case in golden.vectors("dst_cbc/trace_supervised*").values():
    run = Recorded(case, dst_cbc.Method(rule=None))
    each = int(case["batch"])
    starts = range(0, len(case["image"]), each)
    run.begin(variables_of(case, "init."), float(case["lr"]), len(case["step_loss"]))
    for step, wanted in enumerate(case["step_loss"]):
      rows = slice(starts[step % len(starts)], starts[step % len(starts)] + each)
      metrics = run.step(labeled=(case["image"][rows], case["label"][rows].astype(int)))
      np.testing.assert_allclose(metrics["loss"], wanted, **LOSS)
      for row in case["validation"]:
        if row[0] == step + 1:
          np.testing.assert_allclose(run.validate(run.variables), row[1:], atol=0.05)
      if f"after{step + 1}.classifier.bias" in case:
        after = variables_of(case, f"after{step + 1}.")
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **STATE), run.variables, after)


@pytest.mark.parametrize("rule", ["mutual", "online"])
def test_recorded_phase(rule):
  """A phase of DMT, and the run that labels while it learns."""
  name = {"mutual": "dmt", "online": "online"}[rule]
  for case in golden.vectors(f"dst_cbc/trace_{name}*").values():
    values = {"threshold": float(case["threshold"]) + 1e-4} if rule == "online" else {
      "gamma": float(case["gamma1"]), "gamma2": float(case["gamma2"])
    }  # fmt: skip
    run = Recorded(case, dst_cbc.Method(rule=rule, **values))
    labeled = len(case["labeled_image"])
    sizes = int(case["labeled_batch"]), int(case["pseudo_batch"])
    starts = range(0, len(case["unlabeled_image"]), sizes[1])
    if rule == "mutual":
      thresholds, labels, confidence = pseudo_labels(
        run, variables_of(case, "labeler."), float(case["label_ratio"]), "scale"
      )
      np.testing.assert_allclose(thresholds, case["thresholds"], rtol=0, atol=1e-5)
      assert (labels != case["pseudo"][..., 0]).mean() <= 1e-3
      np.testing.assert_allclose(confidence, case["pseudo"][..., 1], atol=1e-5)
      maps = case["pseudo"][..., 0].astype(int), case["pseudo"][..., 1]
    else:
      maps = (case["online_labels"].astype(int),)
    run.begin(variables_of(case, "init."), float(case["lr"]), len(case["step_loss"]))
    turn = 0
    for step, wanted in enumerate(case["step_loss"]):
      start = starts[step % len(starts)]
      own, other = slice(turn, turn + sizes[0]), slice(start, start + sizes[1])
      turn = 0 if turn + sizes[0] >= labeled else turn + sizes[0]
      metrics = run.step(
        labeled=(case["labeled_image"][own], case["labeled_label"][own].astype(int)),
        unlabeled=(case["unlabeled_image"][other], *(m[other] for m in maps)),
      )
      np.testing.assert_allclose(metrics["loss"], wanted, **LOSS)
      if rule == "mutual":
        columns = ("disagreements", "won", "mean_weight", "unweighted_loss")
        found = [metrics[column] for column in columns]
        np.testing.assert_allclose(found, case["step_stats"][step], rtol=1e-4)
    if "final.classifier.bias" in case:
      final = variables_of(case, "final.")
      jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **STATE), run.variables, final)
