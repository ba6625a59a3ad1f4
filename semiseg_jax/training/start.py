"""The network that a run starts with: what its config, its method and its weights make of it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from semiseg_jax import networks
from semiseg_jax.backend import platform
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Method
from semiseg_jax.convert.checkpoint import description, open_weights
from semiseg_jax.convert.report import named_origin, summary
from semiseg_jax.convert.weights import Weights, fit
from semiseg_jax.fields import require
from semiseg_jax.models.network import Network, Variables


class Start(NamedTuple):
  """A network with its arrays on the host.

  make(seed): the arrays of another such network, of another initialisation. model: what
  `networks.build` took; note: where the arrays come from, for people.
  """

  variables: Variables
  network: Network
  make: Callable[[int], Variables]
  model: Mapping[str, Any] = {}
  note: str = "from scratch"


def make_start(config: Mapping[str, Any], num_classes: int, method: Method, seed: int) -> Start:
  """The network of config.model with the heads that the method wants, and init_from's weights.

  Raises ValueError for what is not there or doesn't fit.
  """
  weights = None
  if config["init_from"]:
    weights = open_weights(config["init_from"], which=config["which"])
  model = description(config) | {"num_classes": num_classes, "heads": method.heads()}
  if model["normalization"] == "auto":
    model["normalization"] = default_normalization(config["init_from"], weights)
  computation = {
    "dtype": compute_dtype(config["dtype"]),
    "axis_name": DATA_AXIS if config["sync_batch_norm"] else None,
    "remat": config["remat"],
  }
  make = lambda seed: networks.build(model, **computation, seed=seed)[0]
  variables, network = networks.build(model, **computation, seed=seed)
  start = Start(variables, network, make, model)
  return filled(start, weights, config) if weights else start


def compute_dtype(name: str) -> jnp.dtype:
  """float32, bfloat16, or for "auto" bfloat16 on accelerators and float32 on the CPU."""
  require("config.model.dtype", name, ("auto", "float32", "bfloat16"))
  if name == "auto":
    name = "float32" if platform() == "cpu" else "bfloat16"
  return jnp.dtype(name)


def default_normalization(reference: str | None, weights: Weights | None) -> str:
  """What "auto" means: as the weights were trained; ValueError if they don't say how."""
  if weights is None:
    return "imagenet"
  own = weights.model["normalization"]
  if own is None:
    raise ValueError(
      f"config.model.init_from={reference!r} doesn't say how its inputs were normalised: give "
      "config.model.normalization"
    )
  return own


def filled(start: Start, weights: Weights, config: Mapping[str, Any]) -> Start:
  """The network with the weights that it can take, and a line on what was taken."""
  try:
    variables, report = fit(
      weights, start.variables, start.model, reinit_classifier=config["reinit_classifier"]
    )
  except ValueError as error:
    hint = str(error).replace("reinit_classifier", "config.model.reinit_classifier=True")
    raise ValueError(f"config.model.init_from={config['init_from']!r}: {hint}") from error
  note = f"weights of {named_origin(config['init_from'], weights)}: {summary(report)}"
  own, ours = weights.model["normalization"], start.model["normalization"]
  if own != ours:
    note += f"; its inputs were normalised as {own or 'unknown'}, here as {ours}"
  return start._replace(variables=variables, note=note)
