"""What --verify finds, and what it can't."""

import jax
import numpy as np
import pytest

from semiseg_jax.convert import families, verify
from semiseg_jax.convert.assign import tensors_of
from semiseg_jax.convert.weights import Weights, convert
from tests.convert.test_assign import make

NAMES = list("abcde")


@pytest.fixture
def weights() -> Weights:
  model, variables = make("reco")
  family = families.named("reco")
  return Weights(tensors_of(family, variables), family, model, {})


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch):
  monkeypatch.setattr(verify, "_SIZE", (32, 48))


def wrong(weights: Weights, **options) -> list[str]:
  """What does not hold."""
  found = verify.findings(weights, convert(weights, **options), NAMES)
  return [text for held, text in found if not held]


def test_a_whole_file_holds(weights):
  found = list(verify.findings(weights, convert(weights), NAMES))
  assert all(held for held, _ in found)
  used, filled, back, numbers, picture = (text for _, text in found)
  assert used == "the file's tensors are all in use"
  assert filled == "the network's arrays all come from the file"
  counters = [key for key in weights.tensors if key.endswith("num_batches_tracked")]
  assert back == f"{len(weights.tensors) - len(counters)} tensors come back bit for bit"
  assert "trunk 0." in numbers and "representation 0." in numbers
  assert "logits 32x48x5" in picture and "%" in picture and "mean confidence 0." in picture


def test_tensors_without_use_and_arrays_without_a_tensor(weights):
  tensors = {**weights.tensors, "second_head.weight": np.zeros(3, np.float32)}
  del tensors["ASPP.project.0.weight"], tensors["project.1.bias"]
  assert wrong(weights._replace(tensors=tensors)) == [
    "tensors of the file without use: second_head.weight",
    "fresh arrays of the network: ASPP.project.0.kernel, project.1.bias",
  ]


def test_a_classifier_left_out_on_request_is_named(weights):
  options = {"num_classes": 3, "reinit_classifier": True}
  assert wrong(weights, **options) == []
  found = [text for _, text in verify.findings(weights, convert(weights, **options), list("abc"))]
  assert found[0].endswith("of another number of classes: classifier.3.bias, classifier.3.weight")
  assert found[1].endswith("fresh arrays of the network: classifier.3.bias, classifier.3.kernel")
  del weights.tensors["project.1.bias"]  # nobody asked for that
  assert len(wrong(weights, **options)) == 1


def test_arrays_that_are_not_the_files(weights):
  done = convert(weights)
  changed = jax.tree.map(np.copy, done.variables.params)
  bias = changed["trunk"]["bn1"]["bias"]
  changed["trunk"]["bn1"]["bias"] = np.nextafter(bias, np.float32(9))
  done = done._replace(variables=done.variables._replace(params=changed))
  texts = [text for held, text in verify.findings(weights, done, NAMES) if not held]
  assert texts == ["tensors that come back changed: resnet_bn1.bias"]


@pytest.mark.parametrize(
  ("key", "value"),
  [("resnet_conv1.weight", np.nan), ("resnet_bn1.running_var", -9.0)],
)
def test_numbers_that_are_none(key, value, weights):
  weights.tensors[key] = np.full_like(weights.tensors[key], value)
  numbers, picture = wrong(weights)
  assert "infinities, NaN or a negative variance in: " in numbers and "trunk." in numbers
  assert "not all finite" in picture


def test_swapped_tensors_of_one_shape_hold_as_the_message_says(weights):
  one, other = (f"resnet_layer3.1.conv{i}.weight" for i in (1, 2))
  weights.tensors[one], weights.tensors[other] = weights.tensors[other], weights.tensors[one]
  assert wrong(weights) == []
  assert "two tensors of one shape in each other's place" in verify.LIMITS
