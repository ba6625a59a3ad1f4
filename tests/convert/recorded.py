"""The originals' networks whose outputs were recorded, with weights made from their names."""

import functools
import json
import re
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
import pytest

from semiseg_jax.convert import families
from semiseg_jax.convert.weights import Converted, Weights, convert, describe
from semiseg_jax.networks import NETWORKS
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


def settings_of(name: str, recorded: golden.Vector) -> dict[str, int]:
  """What weights don't tell of a vector's network: {"output_stride": n}, {} for the family's own.

  Said by an array of that name, by the vector's name, such as deeplabv3p_19_os8, or by the size of
  logits that are at the trunk's stride.
  """
  logits = next(key for key in recorded if re.search(r"(pred|logits)$", key))
  side, small = recorded[re.sub(r"[a-z]+$", "input", logits)].shape[-1], recorded[logits].shape[-1]
  stride = 1 << (-(-side // small) - 1).bit_length()
  said = re.search(r"(?:os|stride)_?(\d+)", name)
  if "output_stride" in recorded:
    stride = int(recorded["output_stride"])
  elif said:
    stride = int(said[1])
  return {"output_stride": stride} if stride > 4 else {}


def tensors_of(manifest: str) -> dict[str, np.ndarray]:
  """By rule; those that a file such as MANIFEST.scaled_by_0p2.json lists, times that."""
  return dict(_tensors_of(manifest))


@functools.lru_cache(maxsize=1)
def _tensors_of(manifest: str) -> dict[str, np.ndarray]:
  tensors = fill(golden.load_json(f"{manifest}.manifest.json"))
  for path in golden.FOLDER.glob(f"{manifest}.scaled_by_*.json"):
    factor = np.float32(path.stem.rpartition("_")[2].replace("p", "."))
    tensors |= {key: tensors[key] * factor for key in json.loads(path.read_text())}
  return tensors


def weights_of(manifest: str, **known: str | int) -> Weights:
  """known: of the model; where its keys don't tell the network, the manifest's name does."""
  tensors = tensors_of(manifest)
  family = families.detect(tensors)
  model = describe(family, tensors, {}) | known
  if model["name"] is None:
    name = manifest.partition("/")[2]
    model["name"] = max((n for n in NETWORKS if name.startswith(n)), key=len)
  model["normalization"] = model["normalization"] or "imagenet"  # inputs come normalised
  return Weights(tensors, family, model, {})


@functools.lru_cache(maxsize=1)
def case_of(manifest: str, **known: str | int) -> Case:
  weights = weights_of(manifest, **known)
  return Case(weights, convert(weights))


def recorded_case(folder: str, name: str, recorded: golden.Vector) -> Case:
  """The network of a vector."""
  return case_of(manifest_of(folder, name), **settings_of(name, recorded))


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
