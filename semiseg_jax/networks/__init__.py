"""Whole networks, one file each: a module, its description, and NETWORKS, what it is called.

A checkpoint keeps of its network what `build` takes: the keys of config.model that describe it, and
num_classes, heads (see `add_heads`) and normalization.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from semiseg_jax import fields
from semiseg_jax.models.architecture import Architecture
from semiseg_jax.models.densenet import DENSENETS, DenseNetTrunk
from semiseg_jax.models.enet import ENetTrunk
from semiseg_jax.models.layers import Maker
from semiseg_jax.models.network import Network, Segmenter, Variables, split_network
from semiseg_jax.models.normalization import NORMALIZATIONS
from semiseg_jax.models.projection import PROJECTIONS
from semiseg_jax.models.resnet import BACKBONES, ResNetTrunk
from semiseg_jax.models.rows import RowHead
from semiseg_jax.models.selectors import ClassSelectors
from semiseg_jax.models.trunk import Trunk
from semiseg_jax.models.unet import UNetTrunk
from semiseg_jax.models.vgg import VGGTrunk
from semiseg_jax.models.vit import NAMES as VITS
from semiseg_jax.models.vit import ViTTrunk
from semiseg_jax.models.xception import XceptionTrunk

_MODULES = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
NETWORKS: dict[str, type[Architecture]] = {
  name: kind for module in _MODULES for name, kind in module.NETWORKS.items()
}
TRUNKS: dict[str, type[Trunk]] = {
  **dict.fromkeys(BACKBONES, ResNetTrunk),
  "xception": XceptionTrunk,
  **dict.fromkeys(DENSENETS, DenseNetTrunk),
  **dict.fromkeys(("vgg16", "vgg16_bn"), VGGTrunk),
  "unet": UNetTrunk,
  "enet": ENetTrunk,
  **dict.fromkeys(VITS, ViTTrunk),
}
HEADS = ("representation", "selectors", *PROJECTIONS)


def make(values: Mapping[str, Any]) -> Architecture:
  """The network called values["name"] with the other keys as its fields, "trunk" among them.

  Raises ValueError for an unknown name or key, naming the nearest, and for a value that is not
  there or of another type than its default's.
  """
  values = dict(values)
  if "trunk" in values:
    values["trunk"] = make_trunk(values["trunk"])
  return fields.make_chosen(NETWORKS, "config.model", values)


def make_trunk(values: Mapping[str, Any]) -> Trunk:
  """The trunk called values["name"] with the other keys as its fields; raises as `make` does."""
  values = dict(values)
  kind = fields.choose("config.model.trunk.name", values.get("name", ""), TRUNKS)
  return fields.make(kind, "config.model.trunk", values["name"], values)


def complete(values: Mapping[str, Any]) -> dict[str, Any]:
  """The same values with every default filled in; raises as `make` does."""
  return {"name": values["name"], **dataclasses.asdict(make(values))}


def build(
  model: Mapping[str, Any],
  *,
  dtype: Any = np.float32,
  axis_name: str | None = None,
  remat: str = "none",
  seed: int = 0,
) -> tuple[Variables, Network]:
  """A fresh network by its description, see above; its weights are numpy arrays.

  dtype, axis_name, remat: see `Maker`. Raises ValueError as `make` does, and for a head or
  normalization that is not there.
  """
  values = dict(model)
  num_classes, heads = values.pop("num_classes"), values.pop("heads", {})
  name = values.pop("normalization", "imagenet")
  normalization = fields.choose("config.model.normalization", name, NORMALIZATIONS)
  maker = Maker(np.random.default_rng(seed), dtype, axis_name, remat)
  module = make(values).build(num_classes, heads.get("representation"), maker)
  _check_heads(module, values["name"], heads)
  add_heads(module, heads, num_classes, maker)
  return split_network(module, normalization)


def _check_heads(module: Segmenter, name: str, heads: Mapping[str, int]) -> None:
  for head in heads:
    fields.require("head", head, HEADS)
    if head in ("representation", "selectors") and module.feature_dim is None:
      raise ValueError(
        f"config.model.name={name!r} adds up the scores of several stages: it has no features of a "
        f"pixel for the {head} that config.method.name needs, so take another network"
      )


def add_heads(module: Segmenter, heads: Mapping[str, int], num_classes: int, maker: Maker) -> None:
  """Adds what a method needs beside the classifier.

  heads: {"representation": its dimension}, which the network itself builds (Outputs.embedding);
  {"selectors": dimension}, the memory bank's projection_head, prediction_head, selectors and
  memory_selectors, which work on rows of features and not on images; {"projection_mlp": dimension}
  or {"projection_aspp": dimension}, C3-SemiSeg's projection, which works on the encoder's features.
  """
  if dim := heads.get("selectors"):
    module.late = ("projection_head", "prediction_head", "selectors", "memory_selectors")
    module.per_class = ("selectors", "memory_selectors")
    module.projection_head = RowHead(module.feature_dim, dim, maker)
    module.prediction_head = RowHead(dim, dim, maker)
    module.selectors = ClassSelectors(num_classes, dim, maker)
    module.memory_selectors = ClassSelectors(num_classes, dim, maker)
  for head in heads.keys() & PROJECTIONS.keys():
    module.late += ("projection",)
    module.projection = PROJECTIONS[head](module.channels, heads[head], maker)
