"""Evaluation on any number of devices against a count on the host."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from semiseg_jax.evaluation.evaluate import evaluate, make_evaluate_step
from semiseg_jax.evaluation.metrics import scores
from semiseg_jax.input.own_size import OwnSizeBatches
from semiseg_jax.input.pipeline import EvalBatches
from semiseg_jax.input.sources import Source
from semiseg_jax.labels import IGNORE
from semiseg_jax.models.normalization import normalize
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.runtime.mesh import make_mesh, replicate, shard_batch
from tests import golden
from tests.tiny import Given

SCORE = 1e-5  # float32 logits of three layers; a pixel that changes sides would be more
MEAN = 1e-6  # of float32 losses
CLASSES, IMAGES, SIZE = 4, 19, (20, 28)


def linear(params, batch_stats, images):
  """A linear classifier of every fourth pixel."""
  return images[:, ::4, ::4] @ params["kernel"] + batch_stats


class Pictures(Source):
  """Random pictures of several sizes, none as large as SIZE."""

  sizes = ((19, 28), (20, 25), (13, 17))

  def __init__(self, count=IMAGES):
    self.ids, self.labeled = [f"picture_{i}" for i in range(count)], np.ones(count, bool)

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    size = self.sizes[index % 3]
    label = rng.integers(0, CLASSES, size).astype(np.uint8)
    label[rng.random(size) < 0.1] = IGNORE
    return {"image": rng.integers(0, 256, (*size, 3)).astype(np.uint8), "label": label}


@pytest.fixture(scope="module")
def variables():
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(3, CLASSES)).astype(np.float32)
  return {"kernel": kernel}, rng.normal(size=CLASSES).astype(np.float32)


@pytest.fixture(scope="module")
def expected(variables):
  """(confusion matrix, mean cross-entropy) by a loop over the pictures, each counted once."""
  matrix, losses = np.zeros((CLASSES, CLASSES), np.int64), []
  batches = list(EvalBatches(Pictures(), batch=1, size=SIZE))
  assert len(batches) == IMAGES
  for batch in batches:
    logits = linear(*variables, jnp.asarray(batch["image"], jnp.float32))
    logits = np.asarray(resize_bilinear(logits, SIZE, True), np.float64)
    valid = batch["label"] != IGNORE
    label, logits = batch["label"][valid], logits[valid]
    np.add.at(matrix, (label, logits.argmax(-1)), 1)
    losses += list(np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(label)), label])
  return matrix, np.mean(losses)


@pytest.mark.parametrize(("devices", "batch"), [(1, 4), (3, 4), (5, 4), (8, 4), (2, 8), (8, 19)])
def test_equal_to_a_count_on_the_host(devices, batch, variables, expected):
  """Any batch on any number of devices; 19 images never fill the last batch of several rows."""
  mesh = make_mesh(jax.devices()[:devices])
  step = make_evaluate_step(Given(linear), CLASSES, mesh)
  batches = EvalBatches(Pictures(), batch=batch, size=SIZE, devices=devices)
  put = lambda batch: shard_batch(batch, mesh)
  found, loss = evaluate(step, *replicate(variables, mesh), batches, put)
  matrix, mean = expected
  for value, other in zip(found, scores(matrix), strict=True):
    np.testing.assert_array_equal(value, other)
  assert loss == pytest.approx(mean, rel=1e-5)
  assert step._cache_size() == 1


@pytest.mark.parametrize("devices", [1, 3])
def test_pictures_in_their_own_sizes(devices, variables):
  mesh = make_mesh(jax.devices()[:devices])
  step = make_evaluate_step(Given(linear), CLASSES, mesh)
  batches = OwnSizeBatches(Pictures(), batch=4, devices=devices)
  found, loss = evaluate(
    step, *replicate(variables, mesh), batches, partial(shard_batch, mesh=mesh)
  )
  matrix = np.zeros((CLASSES, CLASSES), np.int64)
  for i in range(IMAGES):
    record = Pictures()[i]
    logits = linear(*variables, jnp.float32(record["image"])[None])
    logits = np.asarray(resize_bilinear(logits, record["label"].shape, True)[0])
    valid = record["label"] != IGNORE
    np.add.at(matrix, (record["label"][valid], logits[valid].argmax(-1)), 1)
  for value, other in zip(found, scores(matrix), strict=True):
    np.testing.assert_array_equal(value, other)
  assert np.isfinite(loss) and step._cache_size() == len(Pictures.sizes)


def test_without_labels_scores_are_nan(variables):
  mesh = make_mesh(jax.devices()[:1])
  batch = {"image": np.zeros((1, 8, 8, 3), np.uint8), "label": np.full((1, 8, 8), IGNORE, np.uint8)}
  step = make_evaluate_step(Given(linear), CLASSES, mesh)
  found, loss = evaluate(step, *variables, [batch], lambda batch: batch)
  assert np.isnan([found.miou_present, found.accuracy, loss]).all()


def test_no_batch_at_all():
  with pytest.raises(ValueError, match="validation set is empty"):
    evaluate(None, None, None, [], None)


def recorded(params, batch_stats, images):
  """The recorded runs' network in evaluation mode, on the original's own arrays."""
  x = jnp.moveaxis(normalize(images), -1, 1)
  channels = lambda name: params[name][:, None, None]
  for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
    x = lax.conv(x, params[f"{conv}.weight"], (2, 2), "SAME_LOWER")
    scale = channels(f"{norm}.weight") / jnp.sqrt(channels(f"{norm}.running_var") + 1e-5)
    x = (x - channels(f"{norm}.running_mean")) * scale + channels(f"{norm}.bias")
    x = jax.nn.relu(x)
  x = lax.conv(x, params["classifier.weight"], (1, 1), "VALID") + channels("classifier.bias")
  return jnp.moveaxis(x, 1, -1)


@golden.cases("reco/train_*")
def test_the_original_log_of_test_scores(case):
  """The last three columns of the recorded log, at every epoch: loss, mIoU, accuracy."""
  label = golden.known(case["test_label"]).astype(np.uint8)
  batch = {"image": golden.nhwc(case["test_image_level"]), "label": label}
  mesh = make_mesh(jax.devices()[:1])
  classes = len(case["it0/student/classifier.bias"])
  step = make_evaluate_step(Given(recorded), classes, mesh)
  network = "teacher" if "it0/teacher/conv1.weight" in case else "student"
  for epoch, row in enumerate(case["epoch_log"]):
    prefix = f"it{(epoch + 1) * int(case['iterations_per_epoch']) - 1}/{network}/"
    params = {k.removeprefix(prefix): v for k, v in case.items() if k.startswith(prefix)}
    found, loss = evaluate(step, params, None, [batch], lambda batch: batch)
    np.testing.assert_allclose([loss, found.miou, found.accuracy], row[-3:], rtol=SCORE)


@golden.cases("memory_bank/evaluate_*")
def test_the_memory_banks_evaluation(case):
  """Images of any size, logits brought to their labels' own size."""
  classes, mesh = int(case["num_classes"]), make_mesh(jax.devices()[:1])
  step = make_evaluate_step(Given(lambda logits, *_: logits), classes, mesh)
  confusion, losses = 0, []
  for number in range(int(case["num_images"])):
    label = case[f"labels.{number}"][None]
    label = golden.known(label, case["ignore_label"]).astype(np.uint8)
    batch = {"image": np.zeros((1, 2, 2, 3), np.uint8), "label": label}
    counts = step(golden.nhwc(case[f"logits.{number}"]), None, batch)
    confusion = confusion + np.asarray(counts.confusion, np.int64)
    losses.append(float(counts.loss_sum) / counts.confusion.sum())
  np.testing.assert_allclose(scores(confusion).miou, case["miou_f64"], rtol=MEAN)
  np.testing.assert_allclose(np.mean(losses), case["mean_loss_f64"], rtol=MEAN)
