"""Whole networks by name, and the functions that run any of them on plain trees of arrays.

Module paths are the PyTorch originals' state-dict keys, except that the trunk is `resnet.` here and
`resnet_` or nothing there, that all DeepLabs name their parts as ReCo's does, that the selectors of
all classes are one module, and that weights are called kernel, scale, mean and var.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from semiseg_jax.models.deeplab import (
  DeepLabV2,
  DeepLabV3,
  DeepLabV3P,
  DeepLabV3Plus,
  Outputs,
  ResNetClassifier,
)
from semiseg_jax.models.layers import Frozen, Init, he_normal_fan_out, make_layers, normal
from semiseg_jax.models.resnet import BACKBONES, REMAT, TORCHVISION, Layout, ResNet
from semiseg_jax.models.rows import RowHead
from semiseg_jax.models.selectors import ClassSelectors

Tree = dict[str, Any]


class Original(NamedTuple):
  """What the original of a network does its own way.

  rates: of the dilated 3x3 convolutions on the trunk, by output stride; the first stride is the
  default. branches: how many of DeepLabV2's are added up. layout: of the trunk. trunk_init and
  init: of the kernels in the trunk and elsewhere; PyTorch's default without one. train_norms:
  whether scales and biases of the trunk's BatchNorms are trained.
  """

  rates: dict[int, tuple[int, ...]]
  branches: int = 4
  layout: Layout = TORCHVISION
  trunk_init: Init = he_normal_fan_out
  init: Init | None = None
  train_norms: bool = True


_MEMORY_BANK = Original(
  rates={8: (6, 12, 18, 24)},
  branches=2,  # its code returns from within the loop over four
  layout=Layout(dilate_first=True),
  trunk_init=normal(0.01),
  init=normal(0.01),
  train_norms=False,
)
ORIGINALS = {
  "deeplabv3p": Original(rates={16: (6, 12, 18), 8: (12, 24, 36)}),
  "deeplabv2": Original(rates={8: (6, 12, 18, 24)}),
  "deeplabv2_coco": _MEMORY_BANK._replace(
    layout=Layout(stride_in_1x1=True, dilate_first=True, ceil_pool=True)
  ),
  "deeplabv2_imagenet": _MEMORY_BANK,
  "deeplabv3plus": _MEMORY_BANK._replace(rates={16: (6, 12, 18)}),
  "deeplabv3": Original(rates={8: (12, 24, 36), 16: (6, 12, 18)}),
  "resnet": Original(rates={32: ()}),
}


def create(
  name: str,
  *,
  num_classes: int,
  backbone: str = "resnet101",
  embedding_dim: int | None = None,
  head_dim: int | None = None,
  output_stride: int | None = None,
  classifier_branches: int | None = None,
  aux_head: bool = False,
  width: int = 64,
  decoder_dim: int = 256,
  dtype: jax.typing.DTypeLike = jnp.float32,
  axis_name: str | None = None,
  remat: str = "none",
  seed: int = 0,
) -> nnx.Module:
  """A network from scratch: module(images, train, keys) -> Outputs. Its weights are numpy arrays.

  name: deeplabv3p, deeplabv2 (ReCo's) | deeplabv2_coco, deeplabv2_imagenet, deeplabv3plus (the
  memory bank's, for weights from there) | deeplabv3 (torchvision's) | resnet, which classifies
  whole images. backbone: resnet18 | resnet34 | resnet50 | resnet101 | resnet152.
  embedding_dim: of the representation head, which resnet never has; None for none.
  head_dim: of the memory bank's projection_head, prediction_head, selectors and memory_selectors,
  which work on rows of features and not on images; None for none.
  output_stride: of the trunk; 16 or 8 for deeplabv3p, 8 or 16 for deeplabv3, 16 for deeplabv3plus,
  32 for resnet, 8 for the others; None for the first of these.
  classifier_branches: how many of DeepLabV2's 4 are added up; None for the original's number.
  aux_head: deeplabv3's second classifier.
  width: of the trunk's stem, 64 as published. decoder_dim: of ASPP and heads.
  dtype: of convolutions and activations; weights, BatchNorm and outputs are float32 anyway.
  axis_name: the mesh axis over which BatchNorm is synchronised.
  remat: what of the trunk is recomputed in the backward pass: none | elementwise (BatchNorm, ReLU
  and sums; convolutions' outputs are kept) | blocks (all but a block's input).
  Raises ValueError for a name, backbone, stride, number or remat that is not there.
  """
  _check_choice("name", name, ORIGINALS)
  _check_choice("backbone", backbone, BACKBONES)
  _check_choice("remat", remat, REMAT)
  original = ORIGINALS[name]
  output_stride = next(iter(original.rates)) if output_stride is None else output_stride
  _check_choice(f"output_stride of {name}", output_stride, original.rates)
  rates = original.rates[output_stride]
  rng = np.random.default_rng(seed)
  trunk_layers = make_layers(rng, dtype, axis_name, original.trunk_init, original.train_norms)
  trunk = ResNet(backbone, output_stride, width, trunk_layers, remat, original.layout)
  common = (trunk, num_classes, embedding_dim, rates)
  make = make_layers(rng, dtype, axis_name, original.init)
  if name == "resnet":
    module = ResNetClassifier(trunk, num_classes, rng)
  elif name == "deeplabv3":
    module = DeepLabV3(*common, decoder_dim, make, aux_head)
  elif name == "deeplabv3p":
    module = DeepLabV3P(*common, decoder_dim, make)
  elif name == "deeplabv3plus":
    module = DeepLabV3Plus(*common, decoder_dim, make)
  else:
    branches = original.branches if classifier_branches is None else classifier_branches
    _check_choice("classifier_branches", branches, range(1, len(rates) + 1))
    module = DeepLabV2(*common, branches, make)
  if head_dim:
    _add_row_heads(module, num_classes, head_dim, rng, dtype, axis_name)
  return module


def _add_row_heads(
  module: nnx.Module,
  num_classes: int,
  dim: int,
  rng: np.random.Generator,
  dtype: jax.typing.DTypeLike,
  axis_name: str | None,
) -> None:
  options = {"rng": rng, "axis_name": axis_name}
  module.projection_head = RowHead(module.feature_dim, dim, dtype=dtype, **options)
  module.prediction_head = RowHead(dim, dim, dtype=dtype, **options)
  module.selectors = ClassSelectors(num_classes, dim, **options)
  module.memory_selectors = ClassSelectors(num_classes, dim, **options)


def _check_choice(what: str, value: Any, allowed: Collection) -> None:
  if value not in allowed:
    raise ValueError(f"{what} is {value!r}: choose from {', '.join(map(str, allowed))}")


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
  """(graphdef, params, batch_stats): what the module is, and its arrays as nested dicts.

  Keys are strings: params["resnet"]["layer1"]["0"]["conv1"]["kernel"].
  """
  graphdef, params, batch_stats = nnx.split(module, nnx.Param, nnx.BatchStat)
  return graphdef, _to_dict(params), _to_dict(batch_stats)


def frozen(module: nnx.Module) -> Tree:
  """Which parameters are never trained nor decayed: bools, in the shape of `split`'s params."""
  is_variable = lambda x: isinstance(x, nnx.Variable)
  is_frozen = lambda variable: isinstance(variable, Frozen)
  return _to_dict(jax.tree.map(is_frozen, nnx.state(module, nnx.Param), is_leaf=is_variable))


def apply(
  graphdef: nnx.GraphDef, params: Tree, batch_stats: Tree, function: Callable[[nnx.Module], Any]
) -> tuple[Any, Tree]:
  """(function(module), batch_stats as it leaves them); function runs the network or any part.

  The module is a copy that ends with the function: its results must be arrays.
  """
  trees = (nnx.restore_int_paths(tree) for tree in (params, batch_stats))
  module = nnx.merge(graphdef, *trees, copy=True)
  result = function(module)
  return result, _to_dict(nnx.state(module, nnx.BatchStat))


def forward(
  graphdef: nnx.GraphDef,
  params: Tree,
  batch_stats: Tree,
  images: jax.Array,
  train: bool,
  keys: jax.Array | None = None,
) -> tuple[Outputs, Tree]:
  """Runs a network; (its outputs, batch_stats after this batch: unchanged unless train).

  keys: [B], one for each image, for dropout in training; without them there is none.
  """
  inputs = (images, train) if keys is None else (images, train, keys)
  return apply(graphdef, params, batch_stats, lambda module: module(*inputs))


def _to_dict(state: nnx.State) -> Tree:
  return _string_keys(nnx.to_pure_dict(state))


def _string_keys(tree: Any) -> Any:
  if not isinstance(tree, dict):
    return tree
  return {str(key): _string_keys(value) for key, value in tree.items()}
