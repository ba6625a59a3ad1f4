"""Labels by argmax, of scores and of pseudo-labels; masks by rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.evaluation.decide import (
  PUBLISHED,
  Rule,
  above,
  argmax,
  argmax_with_confidence,
  read_rule,
)
from semiseg_jax.models.decision import most_likely
from semiseg_jax.rankdice.settings import RankDice
from semiseg_jax.rankdice.solve import rank_dice
from tests import golden


def test_labels_and_their_probabilities():
  logits = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
  probs = np.exp(logits.astype(np.float64))
  probs /= probs.sum(-1, keepdims=True)
  for decided in (argmax_with_confidence, most_likely):
    label, confidence = decided(logits)
    assert label.dtype == jnp.int32 and confidence.dtype == jnp.float32
    np.testing.assert_array_equal(label, probs.argmax(-1))
    np.testing.assert_allclose(confidence, probs.max(-1), rtol=1e-6)
  np.testing.assert_array_equal(argmax(probs), argmax(logits))


def test_where_two_probabilities_round_to_one_number():
  """Scoring compares logits, pseudo-labelling probabilities, each as its original."""
  logits = jnp.array([0.0, 2.0**-30])
  assert np.ptp(jax.nn.softmax(logits)) == 0
  (scored, confidence), (pseudo, same) = argmax_with_confidence(logits), most_likely(logits)
  assert (scored, pseudo) == (1, 0) and confidence == same == 0.5


def test_masks_by_rule():
  logits = jnp.array([[[[2.0, 1.0, -9.0], [0.0, 0.1, 0.0]]]])
  masks = lambda *fields: Rule(*fields)(logits)[0, 0].tolist()
  most_likely = [[True, False, False], [False, True, False]]
  assert masks("max") == masks("max", True, 3.0) == most_likely
  assert masks("threshold") == [[True, False, False], [False, False, False]]
  assert masks("threshold", False, 1.0, 0.2) == [[True, True, False], [True, True, True]]
  # 0.5 itself is above it (rankseg's fork in its test loop; not in its training)
  assert masks("threshold", True) == [[True, True, False], [True, True, True]]


def test_temperature_divides_the_logits():
  logits = jnp.array([2.0, -2.0])
  for binary, expected in ((False, 1 / (1 + np.exp(-2.0))), (True, 1 / (1 + np.exp(-1.0)))):
    found = Rule("threshold", binary, temperature=2.0).probabilities(logits)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_what_is_no_rule():
  with pytest.raises(ValueError, match=r"decide='rank': choose from 'max', 'threshold', 'rankd"):
    Rule("rank")
  with pytest.raises(ValueError, match=r"evaluation\.temperature=0\.0 should be above 0"):
    Rule(temperature=0.0)


def test_rankdice_as_published_or_with_its_fields():
  assert read_rule("max") == ("max", PUBLISHED)
  assert read_rule("rankdice") == ("rankdice", PUBLISHED)
  name, settings = read_rule("rankdice(solver='rma', metric='iou', pruning=None)")
  assert (name, settings) == ("rankdice", RankDice("rma", metric="iou", pruning=None))
  logits = 2 * jax.random.normal(jax.random.key(0), (1, 9, 9, 2))
  masks = Rule(name, rank_dice=settings)(logits)
  expected = rank_dice(jax.nn.softmax(logits), "rma", metric="iou", pruning=None).masks
  np.testing.assert_array_equal(masks, expected)
  assert (masks != Rule(name)(logits)).any()


@pytest.mark.parametrize(
  "text, message",
  {
    "rank()": r"decide='rank': choose from 'max', 'thr",
    "max(solver='ba')": r"max has no fields",
    "rankdice(solver=": r"decide='rankdice\(solver=': write a name, or rankdice\(",
    "rankdice(solver=b+a)": r"write a name, or rankdice\(solver='trna'\)",
    "rankdice(solve='ba')": r"rankdice\.solve is no key of 'rankdice': did you mean 'solver'",
    "rankdice(smooth='x')": r"rankdice\.smooth='x' must be a number",
    "rankdice(solver='fast')": r"rankdice.solver='fast': choose from 'ba', 'trna'",
  }.items(),
)
def test_what_is_no_rankdice(text, message):
  with pytest.raises(ValueError, match=message):
    read_rule(text)


def test_a_threshold_may_count_as_reached_or_not():
  probs = jnp.float32([[0.5, 0.4, 0.6]])
  np.testing.assert_array_equal(above(probs), [[False, False, True]])
  np.testing.assert_array_equal(above(probs, 0.4, inclusive=True), [[True, True, True]])


@golden.cases("rankdice/successor*", holding="*__acc_*")
def test_decisions_for_accuracy_equal_the_original(case):
  for kind, probs in (("softmax", case["probs"]), ("sigmoid", case["sig_probs"])):
    masks = case[f"{kind}__acc_tr_multilabel"]
    np.testing.assert_array_equal(above(golden.nhwc(probs)), golden.nhwc(masks) == 1)
    np.testing.assert_array_equal(
      argmax(golden.nhwc(probs)), case[f"{kind}__acc_argmax_multiclass"]
    )
