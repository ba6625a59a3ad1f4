"""C3-SemiSeg's projection heads equal the original's."""

import re

import jax
import numpy as np
import pytest
from flax import nnx

from semiseg_jax import networks
from semiseg_jax.convert import families
from semiseg_jax.convert.assign import assign, slots_of, tensors_of
from semiseg_jax.convert.families.c3_deeplabv2 import APART
from semiseg_jax.models.layers import Maker
from semiseg_jax.models.network import Variables
from semiseg_jax.models.projection import PROJECTIONS
from tests import golden
from tests.golden.fill import fill
from tests.models import parts

FAMILY = families.named("c3_deeplabv2")
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # float32
TOY = {"name": "deeplabv2_coco", "num_classes": 5, "trunk": {"name": "resnet18", "width": 4}}


class Holder(nnx.Module):
  """A projection under the name that networks give it."""

  def __init__(self, kind: str, channels: tuple[int, int], dim: int):
    make = Maker(np.random.default_rng(0))
    self.projection = PROJECTIONS[f"projection_{kind}"](channels, dim, make)


def features_of(recorded: golden.Vector) -> list[np.ndarray]:
  keys = ("layer1_f16", "layer4_f16")
  return [np.moveaxis(recorded[key].astype(np.float32), 1, -1) for key in keys]


def head_of(kind: str, recorded: golden.Vector):
  """(network, variables) with the original's weights."""
  tensors = fill(golden.load_json("c3_semiseg/heads.manifest.json")[kind])
  channels = tuple(x.shape[-1] for x in features_of(recorded))
  network, *trees = parts.split(Holder(kind, channels, recorded[f"{kind}__eval"].shape[1]))
  tensors = {APART + key: x for key, x in tensors.items()}
  variables, report = assign(FAMILY, tensors, Variables(*trees))
  assert report.fresh == [] and {why for *_, why in report.left} <= {"a counter"}
  return network, variables


@golden.cases("c3_semiseg/*", holding="mlp__eval")
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("kind", ["mlp", "aspp"])
def test_recorded_outputs(kind, train, case):
  network, variables = head_of(kind, case)
  run = jax.jit(
    lambda *args: network.apply(*args, lambda m: m.projection(features_of(case), train))
  )
  found, after = run(*variables)
  np.testing.assert_allclose(
    found, golden.nhwc(case[f"{kind}__{'train' if train else 'eval'}"]), **TOLERANCE
  )
  slots = slots_of(FAMILY, variables)
  for key, value in case.items():
    if train and (match := re.fullmatch(rf"{kind}__after_train__(.+)", key)):
      leaf = after
      for name in slots[APART + match[1]].path[1:]:
        leaf = leaf[name]
      np.testing.assert_allclose(leaf, value, **TOLERANCE)


@golden.cases("c3_semiseg/*", holding="mlp__eval")
def test_recorded_gradients_of_the_mlp(case):
  network, variables = head_of("mlp", case)
  low, high = features_of(case)

  @jax.jit
  def differentiate(params, high):
    def objective(params, high):
      run = lambda module: module.projection((low, high), True)
      found, _ = network.apply(params, variables.batch_stats, run)
      return (found * golden.nhwc(case["mlp__cotangent"])).sum()

    return jax.grad(objective, (0, 1))(params, high)

  grads, of_input = differentiate(variables.params, high)
  every = case["mlp__grad_input_every8th_channel"]
  step = high.shape[-1] // every.shape[1]
  np.testing.assert_allclose(of_input[..., ::step], golden.nhwc(every), **TOLERANCE)
  found = tensors_of(FAMILY, variables._replace(params=grads))
  for key, value in case.items():
    if match := re.fullmatch(r"mlp__grad__(.+)", key):
      grad = found[APART + match[1]]
      grad = grad[:, :: grad.shape[1] // value.shape[1]] if grad.ndim == 4 else grad
      np.testing.assert_allclose(grad, value, **TOLERANCE)


@pytest.mark.parametrize(("kind", "stride"), [("mlp", 8), ("aspp", 4)])
def test_a_network_has_the_projection_that_is_asked_for(kind, stride):
  """Any dimension; it reads the encoder's features and drops with keys in training alone."""
  variables, network = networks.build({**TOY, "heads": {f"projection_{kind}": 7}})
  assert network.late == ("projection",)
  images = np.zeros((2, 64, 96, 3), np.uint8)
  keys = jax.random.split(jax.random.key(0), 2)

  def run(params, batch_stats, train):
    features, _ = network.encode(params, batch_stats, images, train)
    project = lambda module: module.projection(features, train, keys)
    return network.apply(params, batch_stats, project)[0]

  for train in (False, True):
    program = jax.make_jaxpr(run, static_argnums=2, return_shape=True)(*variables, train)
    _, found = program
    rows, columns = 64 // stride + 1, 96 // stride + 1  # the pool rounds up
    assert found.shape == (2, rows, columns, 7) and found.dtype == np.float32
    assert ("random_bits" in str(program[0])) == (train and kind == "aspp")


def test_initial_kernels_are_small():
  """N(0, 0.01^2); biases as PyTorch makes them."""
  for kind in ("mlp", "aspp"):
    _, params, _ = parts.split(Holder(kind, (64, 256), 32))
    for path, x in jax.tree.leaves_with_path(params):
      if x.ndim == 4 and x.size > 1000:
        np.testing.assert_allclose(x.std(), 0.01, rtol=0.1, err_msg=str(path))
