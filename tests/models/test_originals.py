"""The networks with the originals' weights give the originals' outputs and statistics."""

import json
import pathlib

import jax
import numpy as np
import pytest

from semiseg_jax.models import networks
from semiseg_jax.models.resize import resize_bilinear
from tests import golden
from tests.golden.fill import fill
from tests.models import torch_layout

_RECO = pathlib.Path(golden.__file__).parent / "reco"
# Of the largest value: float32 through a hundred layers. The original's own float32 is off by up to
# 1e-6 of it in evaluation; batch statistics of a few values per channel amplify that.
TOLERANCE = 1e-4


def _paths(pattern):
  paths = sorted(_RECO.glob(pattern))
  assert paths, pattern
  return pytest.mark.parametrize("path", paths, ids=[p.name.split(".")[0] for p in paths])


def _original(manifest_path):
  """(graphdef, params, batch_stats) of the network that a manifest describes."""
  manifest = json.loads(manifest_path.read_text())
  name = manifest_path.name.split("_")[0]
  last = "representation.3.weight" if name == "deeplabv3p" else "representation.0.weight"
  classes = manifest[
    "classifier.3.bias" if name == "deeplabv3p" else "classifier.conv2d_list.0.bias"
  ]
  module = networks.create(name, num_classes=classes[0], embedding_dim=manifest[last][0])
  graphdef, *ours = networks.split(module)
  theirs = torch_layout.to_trees(fill(manifest))
  shapes = lambda trees: jax.tree.map(np.shape, tuple(trees))
  assert shapes(ours) == shapes(theirs)  # the same paths too: nothing missing, nothing over
  return graphdef, *theirs


@_paths("deeplab*_*.npz")
def test_forward_equals_the_original(path):
  case = golden.load(path)
  train = bool(case["train_mode"])
  manifest_path = _RECO / f"{path.stem.removesuffix('_train')}.manifest.json"
  graphdef, params, batch_stats = _original(manifest_path)
  images = np.moveaxis(case["input"], 1, -1)
  run = jax.jit(lambda p, s, x: networks.forward(graphdef, p, s, x, train))
  outputs, new_batch_stats = run(params, batch_stats, images)

  _assert_close(outputs.logits, golden.nhwc(case["pred"]))
  stride = case["rep_channel_stride"]
  _assert_close(outputs.embedding[..., ::stride], golden.nhwc(case["rep_subset"]))
  batch, dim, height, width = case["rep_shape"]
  assert outputs.embedding.shape == (batch, height, width, dim)
  _assert_close(outputs.embedding.mean((0, 1, 2)), case["rep_channel_mean"])
  _assert_close(outputs.embedding.std((0, 1, 2)), case["rep_channel_std"])
  large = resize_bilinear(outputs.logits, images.shape[1:3], align_corners=True)
  assert (np.argmax(large, -1) == case["argmax_large"]).mean() > 0.999

  assert jax.tree.structure(new_batch_stats) == jax.tree.structure(batch_stats)
  for key in case:
    if key.startswith("after/") and not key.endswith("num_batches_tracked"):
      layer, leaf = key.removeprefix("after/").rsplit(".", 1)
      ours = torch_layout.at(new_batch_stats, layer)[leaf.removeprefix("running_")]
      _assert_close(ours, case[key])
  if not train:
    jax.tree.map(np.testing.assert_array_equal, new_batch_stats, batch_stats)


def _assert_close(ours, theirs):
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


@_paths("deeplab*.manifest.json")
def test_manifest_names_our_weights(path):
  _original(path)
