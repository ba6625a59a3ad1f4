"""Trained networks on disk: of a run, of a conversion, or in PyTorch's files."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from semiseg_jax import networks
from semiseg_jax.buckets import reached
from semiseg_jax.convert import families, hub, published
from semiseg_jax.convert.assign import tensors_of
from semiseg_jax.convert.weights import Weights, check_finite, completed, read_weights
from semiseg_jax.models.network import Network, Variables
from semiseg_jax.paths import user_path
from semiseg_jax.runtime.checkpoints import Checkpoints

# Keys of config.model that say how a network computes and starts, not what it is.
_COMPUTING = ("init_from", "which", "reinit_classifier", "dtype", "sync_batch_norm", "remat")


def open_weights(
  reference: str, family: str | None = None, which: str | None = None, **known: Any
) -> Weights:
  """What config.model.init_from names: what `trained_network` takes, a file of weights, or
  "hf://ORG/REPO/FILE".

  which: of several networks in a file, or which of its method's a trained one has to be. family,
  known: see `convert.weights.read_weights`; for files alone.
  """
  if not is_whole(reference):
    return read_weights(reference, family, which, **known)
  if given := [key for key, value in known.items() if value is not None]:
    raise ValueError(f"{reference} says itself what its network is: leave out {', '.join(given)}")
  variables, _, about = trained_network(reference, name=which)
  own = families.OWN
  tensors = tensors_of(own, jax.device_get(variables))
  check_finite(tensors, reference)
  about = {**about, "origin": about.get("origin") or {"file": reference, "family": own.name}}
  return Weights(tensors, own, about["model"], about)


def is_whole(reference: str) -> bool:
  """Whether it names a folder or a repository, which says itself what its network is."""
  return hub.is_repository(reference) or reached(user_path(reference)).is_dir()


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
  workdir: str | pathlib.Path,
  model: ConfigDict | None = None,
  dtype: jnp.dtype = jnp.float32,
  class_names: Sequence[str] | None = None,
  name: str | None = None,
) -> tuple[Variables, Network, dict[str, Any]]:
  """(variables, network, what is known of it) of the best network in workdir.

  workdir: of a run or a conversion, a folder for a model hub, here or in a bucket, or
  "hf://ORG/REPO" that has such a one. model: config.model, if it has to describe that network;
  class_names: those that it has to know; name: which of a method's networks it has to be. Raises
  FileNotFoundError if there is none, ValueError if it is another.
  """

  def build(about: dict[str, Any]) -> tuple[Variables, Network]:
    if model is not None:
      check_same(model, about["model"], workdir)
    if class_names is not None:
      check_classes(about["class_names"], class_names, workdir)
    if name not in (None, about["network"]):
      raise ValueError(
        f"{workdir} holds its {about['network']}, which was scored in training, and not its "
        f"{name}: train with config.evaluation.network={name!r}"
      )
    return networks.build(about["model"], dtype=dtype)

  reference = str(workdir)
  if hub.is_repository(reference) or published.is_folder(reached(user_path(reference))):
    about = published.read_about(reference)
    fresh, network = build(about)
    return published.read_variables(reference, fresh), network, about
  with Checkpoints(_best(user_path(reference)), keep=1) as checkpoints:
    about = checkpoints.about(_check_about)
    if about is None:
      raise FileNotFoundError(
        f"{checkpoints.directory} holds no checkpoint yet: no evaluation has finished"
      )
    fresh, network = build(about)
    restored, about = checkpoints.restore(fresh, _check_about)  # maybe of a later step by now
  return Variables(*restored), network, about


def _check_about(about: dict[str, Any]) -> None:
  """KeyError for a checkpoint that doesn't say what is needed to predict with its network."""
  for key in ("network", "model", "class_names", "palette", "step"):
    about[key]


def _best(workdir: pathlib.Path) -> pathlib.Path:
  if not workdir.is_dir():
    raise FileNotFoundError(
      f"there is no folder {workdir}: train first, with the same --config and --workdir"
    )
  if not (workdir / "best").is_dir():
    raise FileNotFoundError(
      f"no trained network in {workdir}, neither best/ of a run or a conversion nor "
      f"{published.CONFIG} and {published.WEIGHTS} of a hub: train first, with the same --config "
      "and --workdir"
    )
  return workdir / "best"


def check_classes(known: Sequence[str], wanted: Sequence[str], where: str | pathlib.Path) -> None:
  """ValueError unless the classes that a network knows are a dataset's."""
  if list(known) != list(wanted):
    raise ValueError(
      f"the network in {where} knows {len(known)} classes ({', '.join(known)}), the dataset has "
      f"{len(wanted)} ({', '.join(wanted)})"
    )


def check_segments(model: Mapping[str, Any], where: str | pathlib.Path) -> None:
  """ValueError for a network that has one class for a whole image."""
  if networks.NETWORKS[model["name"]].OF_IMAGES:
    raise ValueError(
      f"the network in {where} is a {model['name']}, which classifies whole images, not their "
      "pixels: start one that does from it, by config.model.init_from"
    )


def description(model: Mapping[str, Any]) -> dict[str, Any]:
  """What config.model says of what its network is, defaults filled in, and its normalization.

  Raises ValueError for a name, key or value that is not there.
  """
  values = {key: value for key, value in model.items() if key not in _COMPUTING}
  normalization = values.pop("normalization")
  return {**networks.complete(values), "normalization": normalization}


def check_same(
  model: Mapping[str, Any], trained: Mapping[str, Any], where: str | pathlib.Path
) -> None:
  """ValueError if config.model is of another network than the one that was trained there."""
  wanted, there = (flatten_dict(x, sep=".") for x in (description(model), completed(trained)))
  if wanted["normalization"] == "auto":
    del wanted["normalization"]
  for key, value in wanted.items():
    if key in there and value != there[key]:
      raise ValueError(
        f"the network in {where} was trained with config.model.{key}={there[key]!r}, not "
        f"{value!r}: give the --config that it was trained with"
      )
