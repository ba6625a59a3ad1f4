"""The memory bank's networks with the original's weights give its outputs and statistics."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest

from semiseg_jax.models import networks
from tests import golden
from tests.golden.fill import fill
from tests.models import torch_layout

_FOLDER = pathlib.Path(golden.__file__).parent / "memory_bank"
_MODELS = [path.name.split(".")[0] for path in sorted(_FOLDER.glob("*.manifest.json"))]
# Of the largest value: float32 through a hundred layers. Measured: 2e-6 in evaluation and 8e-6 in
# training, where the statistics of a few values amplify the error.
TOLERANCE = 1e-4


def _original(model):
  """(graphdef, params, batch_stats) of a network with the weights of its manifest."""
  manifest = json.loads((_FOLDER / f"{model}.manifest.json").read_text())
  name, _, backbone = model.partition("_resnet")
  last = "decoder.last_conv.bias" if name == "deeplabv3plus" else "layer5.conv2d_list.0.bias"
  module = networks.create(
    name,
    num_classes=manifest[last][0],
    backbone=f"resnet{backbone or 101}",
    head_dim=manifest["projection_head.0.bias"][0],
  )
  graphdef, *ours = networks.split(module)
  state = {torch_layout.memory_bank_key(key): x for key, x in fill(manifest).items()}
  theirs = torch_layout.to_trees(state)
  shapes = lambda trees: jax.tree.map(np.shape, tuple(trees))
  assert shapes(ours) == shapes(theirs)  # the same paths too: nothing missing, nothing over
  return graphdef, *theirs


@functools.partial(jax.jit, static_argnums=(0, 4))
def _forward(graphdef, params, batch_stats, images, train):
  return networks.forward(graphdef, params, batch_stats, images, train)


@pytest.fixture(scope="module", params=_MODELS)
def original(request):
  """(recorded inputs and outputs, network) of one model; made once for all tests of it."""
  return golden.load(f"memory_bank/{request.param}"), _original(request.param)


def test_evaluation_equals_the_original(original):
  case, network = original
  # the last size is even, which tells the layouts apart; pictures of odd sides are trained on below
  run = max(key.split(".")[0] for key in case if key.startswith("eval"))
  outputs, _ = _forward(*network, np.moveaxis(case[f"{run}.input"], 1, -1), False)
  features = outputs.features
  _assert_close(outputs.logits, golden.nhwc(case[f"{run}.logits"]))
  batch, channels, height, width = case[f"{run}.feature_shape"]
  assert features.shape == (batch, height, width, channels)
  stride = case[f"{run}.feature_channel_stride"]
  _assert_close(features[..., ::stride], golden.nhwc(case[f"{run}.features_strided"]))
  _assert_close(features.mean((0, 1, 2)), case[f"{run}.feature_channel_mean"])
  spread = np.array([features.mean(), features.std(ddof=1)])
  _assert_close(spread, case[f"{run}.feature_mean_std"])


def test_training_equals_the_original(original):
  case, network = original
  outputs, after = _forward(*network, np.moveaxis(case["train.input"], 1, -1), True)
  _assert_close(outputs.logits, golden.nhwc(case["train.logits"]))
  stride = case["eval0.feature_channel_stride"]
  _assert_close(outputs.features[..., ::stride], golden.nhwc(case["train.features_strided"]))
  for key in case:
    if key.startswith("train.after.") and not key.endswith("num_batches_tracked"):
      layer, leaf = key.removeprefix("train.after.").rsplit(".", 1)
      ours = torch_layout.at(after, torch_layout.memory_bank_key(layer))
      _assert_close(ours[leaf.removeprefix("running_")], case[key])
  before = network[2]
  for part in ("projection_head", "prediction_head", "selectors", "memory_selectors"):
    jax.tree.map(np.testing.assert_array_equal, after[part], before[part])


def _assert_close(ours, theirs):
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())
