"""Labels by argmax, of scores and of pseudo-labels."""

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.evaluation.decide import above, argmax, argmax_with_confidence
from semiseg_jax.models.decision import most_likely
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
