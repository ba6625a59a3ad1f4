"""The network of a config: what it is, what it computes in, whether it is that of a checkpoint."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Method, Network, Variables, build_network
from semiseg_jax.models import networks

# What the shapes of arrays don't tell, and what is clearer than an error about shapes.
_COMPARED = ("name", "backbone", "width", "output_stride", "normalization")


def describe_model(
  model: ConfigDict, num_classes: int, method: Method, normalization: str = "imagenet"
) -> dict[str, Any]:
  """config.model as a network's description (`contract.build_network`).

  Without a method that uses them there are no further heads, so nothing decays them.
  normalization: what "auto" means.
  """
  return {
    "name": model.name,
    "num_classes": num_classes,
    "backbone": model.backbone,
    "width": model.width,
    "decoder_dim": model.decoder_dim,
    "output_stride": model.output_stride,
    "embedding_dim": model.embedding_dim if method.uses_embedding else None,
    "head_dim": model.head_dim if method.uses_row_heads else None,
    "classifier_branches": branches_of(model),
    "aux_head": model.aux_head,
    "normalization": normalization if model.normalization == "auto" else model.normalization,
  }


def make_network(
  config: ConfigDict, num_classes: int, method: Method, normalization: str = "imagenet"
) -> tuple[Variables, Network]:
  """The network of config.model with fresh parameters on the host."""
  return build_network(
    describe_model(config.model, num_classes, method, normalization),
    dtype=compute_dtype(config.model.dtype),
    axis_name=DATA_AXIS if config.model.sync_batch_norm else None,
    remat=config.model.remat,
    seed=config.seed,
  )


def compute_dtype(name: str) -> jnp.dtype:
  """float32, bfloat16, or for "auto" bfloat16 on accelerators and float32 on the CPU."""
  allowed = ("auto", "float32", "bfloat16")
  if name not in allowed:
    raise ValueError(f"config.model.dtype={name!r}: choose from {', '.join(allowed)}")
  if name == "auto":
    name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  return jnp.dtype(name)


def check_same(model: ConfigDict, trained: Mapping[str, Any], directory: pathlib.Path) -> None:
  """ValueError if config.model is of another network than the one that was trained there."""
  wanted = {key: model[key] for key in _COMPARED} | {"classifier_branches": branches_of(model)}
  if wanted["normalization"] == "auto":
    del wanted["normalization"]
  for key, value in wanted.items():
    if key in trained and value != trained[key]:
      raise ValueError(
        f"the network in {directory} was trained with config.model.{key}={trained[key]!r}, not "
        f"{value!r}: give the --config that it was trained with"
      )


def branches_of(model: ConfigDict) -> int | None:
  """How many branches of DeepLabV2's classifier are added up; None for other networks."""
  if not model.name.startswith("deeplabv2") or model.name not in networks.ORIGINALS:
    return None
  return model.classifier_branches or networks.ORIGINALS[model.name].branches
