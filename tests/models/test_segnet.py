"""SegNet whose decoder has the encoder's layers, and SegNet on a ResNet for images of any size."""

import functools

import jax
import numpy as np
import pytest

from semiseg_jax import networks
from semiseg_jax.convert import families
from semiseg_jax.convert.assign import assign, tensors_of
from tests.convert.test_assign import make, state_of

SIZE = (48, 33)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3)).astype(np.uint8)
TIED, UNTIED = families.named("zoo_segnet_tied"), families.named("zoo_segnet")


def both():
  """The same weights in a network that shares them and in one that has them twice."""
  (model, tied), (other, fresh) = make("zoo_segnet_tied"), make("zoo_segnet")
  untied, report = assign(UNTIED, tensors_of(TIED, tied), fresh)
  assert not report.fresh
  return (tied, networks.build(model)[1]), (untied, networks.build(other)[1])


def slopes(network, variables):
  """A number that the logits make up, and its gradient."""

  def value(params):
    outputs, _ = network(params, variables.batch_stats, IMAGES, False)
    return (outputs.logits**2).mean()

  return jax.jit(jax.value_and_grad(value))(variables.params)


def test_shared_layers_compute_what_equal_ones_do_and_learn_from_both_places():
  (tied, network), (untied, other) = both()
  ours, theirs = slopes(network, tied), slopes(other, untied)
  np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
  found = tensors_of(TIED, tied._replace(params=ours[1]))
  summed = tensors_of(UNTIED, untied._replace(params=theirs[1]))
  shared = [(key, copy) for key in found for copy in TIED.copies_of(key) if "running" not in key]
  for key, copy in shared:
    summed[key] = summed[copy] = summed[key] + summed[copy]
  assert len([key for key, _ in shared if "num" not in key]) == 9 * 2 + 10 * 2
  for key, tensor in found.items():
    scale = max(np.abs(summed[key]).max(), 1e-6)
    np.testing.assert_allclose(tensor, summed[key], rtol=0, atol=1e-4 * scale, err_msg=key)


def test_shared_statistics_move_in_both_places_unless_the_trunk_is_frozen():
  model, variables = make("zoo_segnet_tied")
  for freeze_bn in ("none", "trunk"):
    _, network = networks.build({**model, "freeze_bn": freeze_bn})
    features, once = network.encode(*variables, IMAGES, True)
    _, twice = network.decode(variables.params, once, features, SIZE, True)
    _, whole = network(*variables, IMAGES, True)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), whole, twice)
    steps = [tensors_of(TIED, variables._replace(batch_stats=x)) for x in (once, twice)]
    before = tensors_of(TIED, variables)
    for key in (key for key in before if key.endswith("running_mean") and "encoder" in key):
      moves = [(a[key] != b[key]).any() for a, b in ((before, steps[0]), steps)]
      is_free = freeze_bn == "none"
      assert moves == [is_free, is_free and bool(TIED.copies_of(key))], key


def test_each_shared_layer_is_there_once():
  tied, untied = (state_of(name) for name in ("zoo_segnet_tied", "zoo_segnet"))
  assert tied.keys() == untied.keys()
  (_, ours), (_, theirs) = make("zoo_segnet_tied"), make("zoo_segnet")
  count = lambda tree: len(jax.tree.leaves(tree))
  assert count(theirs.params) - count(ours.params) == 9 * 2 + 10 * 2
  assert count(theirs.batch_stats) - count(ours.batch_stats) == 10 * 2


@pytest.mark.parametrize("trunk", ["resnet18", "resnet50"])
def test_logits_are_of_the_size_of_any_image(trunk):
  model = {"name": "segresnet", "num_classes": 3, "trunk": {"name": trunk, "width": 4}}
  variables, network = networks.build(model)
  for size in [(32, 64), (33, 47), (34, 63), (35, 50), (70, 69)]:
    run = functools.partial(network, train=False)
    outputs, _ = jax.eval_shape(run, *variables, np.zeros((1, *size, 3), np.uint8))
    assert outputs.logits.shape == (1, *size, 3) and outputs.features.shape == (1, *size, 4)
