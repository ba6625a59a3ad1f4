"""Runs of any config without files or weights, and batches for them."""

import ast
import copy
import importlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from ml_collections.config_flags import config_path

from data.blank import blank_dataset
from semiseg_jax.contract import Tree
from semiseg_jax.planning.plan import abstract_batch
from semiseg_jax.runtime.mesh import make_mesh
from semiseg_jax.training.setup import Run, build

_BLOCK = 16  # pixels of one class at each side of a made-up label


def config_of(file: str, arg: str | None, changes: Sequence[str] = ()) -> ConfigDict:
  """The config of configs/FILE.py, each "KEY=VALUE" of changes applied to it."""
  name = pathlib.Path(file).stem
  config = copy.deepcopy(importlib.import_module(f"configs.{name}").get_config(arg))
  for change in changes:
    key, _, text = change.partition("=")
    config_path.get_value(key, config)  # which raises for an unknown one
    config_path.set_value(key, config, _literal(text))
  return config


def run_of(config: ConfigDict) -> Run:
  """On one device, of black images, the weights at random."""
  config = copy.deepcopy(config)
  config.model.init_from, config.evaluation.batch = None, 1
  height, width = config.data.crop
  shape = (2 * height, 2 * width)
  known = lambda part: part.name and blank_dataset(part.name, part.variant, shape)
  mesh = make_mesh(jax.devices()[:1])
  return build(config, known(config.data), known(config.data.domain), mesh)


def batch_of(run: Run) -> Tree:
  """A batch on the run's devices: noise for images, blocks of all classes for labels."""
  rng, classes = np.random.default_rng(0), run.facts.num_classes

  def values(path: Any, like: jax.ShapeDtypeStruct) -> jax.Array:
    name, shape = path[-1].key, like.shape
    if name == "position":
      made = np.arange(np.prod(shape)).reshape(shape)
    elif shape[-1] == 3:
      made = rng.integers(0, 256, shape)
    else:
      *rows, height, width = shape
      coarse = rng.integers(0, classes, (*rows, -(-height // _BLOCK), -(-width // _BLOCK)))
      made = coarse.repeat(_BLOCK, -2).repeat(_BLOCK, -1)[..., :height, :width]
    return jax.device_put(made.astype(like.dtype), like.sharding)

  return jax.tree_util.tree_map_with_path(values, abstract_batch(run))


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text
