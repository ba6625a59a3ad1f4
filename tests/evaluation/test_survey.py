"""The survey of a set: equal on any number of devices, and the same scores as training's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from semiseg_jax.evaluation.decide import RULES, Rule
from semiseg_jax.evaluation.evaluate import evaluate, make_evaluate_step
from semiseg_jax.evaluation.survey import make_survey_step, survey
from semiseg_jax.input.pipeline import EvalBatches
from semiseg_jax.labels import IGNORE
from semiseg_jax.runtime.mesh import make_mesh, replicate, shard_batch
from tests.evaluation.test_evaluate import CLASSES, SIZE, Pictures, linear
from tests.tiny import Given

COUNT = 11  # no multiple of any batch here
THRESHOLD = Rule("threshold", binary=True, threshold=0.4)


@pytest.fixture(scope="module")
def variables():
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(3, CLASSES)).astype(np.float32) / 100
  return {"kernel": kernel}, rng.normal(size=CLASSES).astype(np.float32)


def surveyed(devices, batch, variables, rule=THRESHOLD):
  mesh = make_mesh(jax.devices()[:devices])
  step = make_survey_step(Given(linear), CLASSES, rule, mesh)
  batches = EvalBatches(Pictures(COUNT), batch=batch, size=SIZE, devices=devices)
  found = survey(step, *replicate(variables, mesh), batches, lambda x: shard_batch(x, mesh))
  assert step._cache_size() == 1
  return found


@pytest.fixture(scope="module")
def alone(variables):
  return surveyed(1, 4, variables)


@pytest.mark.parametrize("devices", [8, pytest.param(3, marks=pytest.mark.slow)])
def test_equal_on_any_number_of_devices(devices, variables, alone):
  found = surveyed(devices, 4, variables)
  np.testing.assert_array_equal(found.rows, np.arange(COUNT))
  of_counts = lambda x: (x.rows, x.counts, x.boundaries, x.confusion)
  jax.tree.map(np.testing.assert_array_equal, of_counts(found), of_counts(alone))
  assert found.loss == pytest.approx(alone.loss, rel=1e-6)


def test_a_rule_may_loop_on_each_device_as_long_as_it_has_to(variables, alone, monkeypatch):
  def halving(rule, logits, inside):
    """Halves a bound until enough pixels of this device's images are above it."""
    probs = rule.probabilities(logits)
    too_few = lambda bound: (probs > bound).mean() < rule.threshold
    bound = lax.while_loop(too_few, lambda bound: bound / 2, jnp.float32(1))
    return probs > bound

  monkeypatch.setitem(RULES, "threshold", halving)
  found = surveyed(8, 8, variables)
  assert (found.counts.predicted > 0).any()
  np.testing.assert_array_equal(found.counts.truth, alone.counts.truth)


def test_rankdice_is_equal_on_any_number_of_devices(variables):
  one, several = (surveyed(devices, 8, variables, Rule("rankdice")) for devices in (1, 8))
  jax.tree.map(np.testing.assert_array_equal, one.counts, several.counts)
  assert (one.counts.predicted > 0).any()


def test_no_margin_and_no_filler_row_counts(alone):
  sizes = [Pictures()[i]["label"].shape for i in range(COUNT)]
  labeled = [(Pictures()[i]["label"] != IGNORE).sum() for i in range(COUNT)]
  np.testing.assert_array_equal(alone.counts.pixels, np.prod(sizes, 1))
  np.testing.assert_array_equal(alone.counts.labeled, labeled)
  assert (alone.counts.predicted <= alone.counts.pixels[:, None]).all()
  assert (alone.counts.predicted > alone.counts.predicted_labeled).any()
  assert (alone.boundaries.hits > 0).any()


def test_training_scores_as_the_survey_does(variables, alone):
  """Bit by bit, whatever the rule."""
  mesh = make_mesh(jax.devices()[:1])
  step = make_evaluate_step(Given(linear), CLASSES, mesh)
  batches = EvalBatches(Pictures(COUNT), batch=4, size=SIZE)
  scores, loss = evaluate(step, *variables, batches, lambda batch: batch)
  for value, other in zip(alone.scores, scores, strict=True):
    np.testing.assert_array_equal(value, other)
  assert alone.loss == loss


def test_the_rules_confusion_is_trainings_for_max(variables, alone):
  found = surveyed(1, 4, variables, Rule("max"))
  hits = np.diag(found.confusion)
  np.testing.assert_array_equal(hits, found.counts.hits.sum(0))
  union = found.confusion.sum(0)[:-1] + found.confusion.sum(1) - hits
  np.testing.assert_allclose(hits / union, found.scores.iou)
  assert not found.confusion[:, -1].any() and alone.confusion[:, -1].any()


def test_no_batch_at_all():
  with pytest.raises(ValueError, match="validation set is empty"):
    survey(None, None, None, [], None)
