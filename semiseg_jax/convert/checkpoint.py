"""Trained networks on disk: of a run, of a conversion, or in PyTorch's files."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from semiseg_jax import networks
from semiseg_jax.convert import families
from semiseg_jax.convert.assign import tensors_of
from semiseg_jax.convert.weights import Weights, read_weights
from semiseg_jax.models.network import Network, Variables
from semiseg_jax.runtime.checkpoints import Checkpoints

# Keys of config.model that say how a network computes and starts, not what it is.
_COMPUTING = ("init_from", "reinit_classifier", "dtype", "sync_batch_norm", "remat")


def open_weights(reference: str, family: str | None = None, **known: Any) -> Weights:
  """What config.model.init_from names: a working directory, a file, or "hf://ORG/REPO/FILE".

  family, known: see `convert.weights.read_weights`; a working directory allows neither.
  """
  path = pathlib.Path(reference)
  if not path.is_dir():
    return read_weights(reference, family, **known)
  if given := [key for key, value in known.items() if value is not None]:
    raise ValueError(f"{path} says itself what its network is: leave out {', '.join(given)}")
  variables, _, about = trained_network(path)
  own = families.OWN
  about = {**about, "origin": about.get("origin") or {"file": reference, "family": own.name}}
  return Weights(tensors_of(own, jax.device_get(variables)), own, about["model"], about)


def save_network(
  directory: pathlib.Path, variables: Variables, model: dict[str, Any], about: dict[str, Any]
) -> None:
  """A network as a working directory from which to evaluate, predict and start.

  about: class_names, palette, and what else is to be kept. Raises ValueError if there is one.
  """
  with Checkpoints(directory / "best", keep=1) as checkpoints:
    if checkpoints.latest_step() is not None:
      raise ValueError(f"{directory} holds a network already: name another directory")
    known = {"network": "student", "model": model, "step": 0, "score": None}
    checkpoints.save(0, variables, {**about, **known})


def trained_network(
  workdir: pathlib.Path,
  model: ConfigDict | None = None,
  dtype: jnp.dtype = jnp.float32,
  class_names: Sequence[str] | None = None,
) -> tuple[Variables, Network, dict[str, Any]]:
  """(variables, network, what the checkpoint says of itself) of the best network in workdir.

  model: config.model, if it has to describe that network; class_names: those that it has to know.
  Raises FileNotFoundError if there is none, ValueError if it is another.
  """
  directory = workdir / "best"
  if not directory.is_dir():
    raise FileNotFoundError(
      f"no trained network in {directory}: train first, with the same --config and --workdir"
    )
  with Checkpoints(directory, keep=1) as checkpoints:
    about = checkpoints.about()
    if about is None:
      raise FileNotFoundError(f"{directory} holds no checkpoint yet: no evaluation has finished")
    if model is not None:
      check_same(model, about["model"], directory)
    if class_names is not None and about["class_names"] != list(class_names):
      raise ValueError(
        f"the network in {workdir} knows {len(about['class_names'])} classes "
        f"({', '.join(about['class_names'])}), the dataset has {len(class_names)} "
        f"({', '.join(class_names)})"
      )
    fresh, network = networks.build(about["model"], dtype=dtype)
    restored, _ = checkpoints.restore(fresh)
  return Variables(*restored), network, about


def description(model: Mapping[str, Any]) -> dict[str, Any]:
  """What config.model says of what its network is, defaults filled in, and its normalization.

  Raises ValueError for a name, key or value that is not there.
  """
  values = {key: value for key, value in model.items() if key not in _COMPUTING}
  normalization = values.pop("normalization")
  return {**networks.complete(values), "normalization": normalization}


def check_same(model: Mapping[str, Any], trained: Mapping[str, Any], where: pathlib.Path) -> None:
  """ValueError if config.model is of another network than the one that was trained there."""
  wanted, there = (flatten_dict(x, sep=".") for x in (description(model), trained))
  if wanted["normalization"] == "auto":
    del wanted["normalization"]
  for key, value in wanted.items():
    if key in there and value != there[key]:
      raise ValueError(
        f"the network in {where} was trained with config.model.{key}={there[key]!r}, not "
        f"{value!r}: give the --config that it was trained with"
      )
