"""The originals' networks whose outputs were recorded, with weights made from their names."""

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
import pytest

from semiseg_jax.convert import families
from semiseg_jax.convert.weights import Converted, Weights, convert, describe
from semiseg_jax.models.networks import NETWORKS
from tests import golden
from tests.golden.fill import fill

# Of the largest value: float32 through a hundred layers. Measured: at most 2e-6 in evaluation and
# 3e-5 in training, where the statistics of a few values amplify the error.
TOLERANCE = 1e-4


class Case(NamedTuple):
  """A family's weights as their own names have them, and as ours."""

  weights: Weights
  done: Converted


def json_files(pattern: str) -> list[str]:
  """Their paths under golden.FOLDER."""
  paths = sorted(golden.FOLDER.glob(f"{pattern}.json"))
  assert paths, pattern
  return [str(path.relative_to(golden.FOLDER)) for path in paths]


def manifests(folder: str) -> list[str]:
  """Every manifest of a folder, such as "reco/deeplabv2_19"."""
  return [path.removesuffix(".manifest.json") for path in json_files(f"{folder}/*.manifest")]


def manifest_of(folder: str, name: str) -> str:
  """The one that a vector's name begins with, the longest if there are several."""
  return max((m for m in manifests(folder) if f"{folder}/{name}".startswith(m)), key=len)


def weights_of(manifest: str, **known: str) -> Weights:
  """known: of the model; where its keys don't tell the network, the manifest's name does."""
  tensors = fill(golden.load_json(f"{manifest}.manifest.json"))
  family = families.detect(tensors)
  model = describe(family, tensors, {}) | known
  if model["name"] is None:
    name = manifest.partition("/")[2]
    model["name"] = max((n for n in NETWORKS if name.startswith(n)), key=len)
  model["normalization"] = model["normalization"] or "imagenet"  # inputs come normalised
  return Weights(tensors, family, model, {})


@functools.lru_cache(maxsize=1)
def case_of(manifest: str, **known: str) -> Case:
  weights = weights_of(manifest, **known)
  return Case(weights, convert(weights))


def runs(vectors: Mapping[str, golden.Vector], pattern: str) -> list:
  """(name, run) for each key that matches; the last run of each is in the default suite."""
  found = []
  for name, recorded in vectors.items():
    *others, last = sorted(m[1] for key in recorded if (m := re.fullmatch(pattern, key)))
    found += [pytest.param(name, run, marks=pytest.mark.slow) for run in others]
    found += [pytest.param(name, last, marks=slow_twin(name))]
  return found


def slow_twin(name: str) -> tuple:
  """The ImageNet layout differs from the COCO one in three places and is as large."""
  return (pytest.mark.slow,) if name.startswith("deeplabv2_imagenet") else ()


@functools.partial(jax.jit, static_argnums=(0, 3))
def _run(network, variables, images, train):
  return network.apply(*variables, lambda module: module(images, train))


def forward(done: Converted, images: np.ndarray, train: bool = False):
  """(outputs, batch_stats) of images as the originals have them, normalised, [B,3,H,W]."""
  return _run(done.network, done.variables, np.moveaxis(images, 1, -1), train)


def assert_close(ours, theirs):
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())
