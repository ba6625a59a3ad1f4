"""Whole networks, and the functions that run any of them on plain trees of arrays.

Module paths are the PyTorch originals' state-dict keys, except that the trunk is `resnet.` here and
`resnet_` there, and that weights are called kernel, scale, mean and var.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from semiseg_jax.models.heads import ASPP, SummedConvs, conv_norm_relu, pixel_head
from semiseg_jax.models.layers import Make, Sequential, he_normal_fan_out, make_layers
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.models.resnet import BACKBONES, ResNet

Tree = dict[str, Any]

LOW_LEVEL_CHANNELS = 48  # of DeepLabV3+'s features at stride 4


class Outputs(NamedTuple):
  """float32, at the network's own stride: logits [B,h,w,K]; embedding [B,h,w,D], not normalised."""

  logits: jax.Array
  embedding: jax.Array | None = None


class DeepLabV3Plus(nnx.Module):
  """ReCo's DeepLabV3+: outputs at stride 4 (side n gives ceil(n/4)); one 3x3 in each head."""

  def __init__(
    self,
    trunk: ResNet,
    num_classes: int,
    embedding_dim: int | None,
    rates: Sequence[int],
    decoder_dim: int,
    make: Make,
  ):
    self.resnet = trunk
    self.ASPP = ASPP(trunk.channels, decoder_dim, rates, make)
    self.project = Sequential(conv_norm_relu(make, trunk.low_channels, LOW_LEVEL_CHANNELS, 1))
    channels = LOW_LEVEL_CHANNELS + decoder_dim
    self.classifier = pixel_head(channels, decoder_dim, num_classes, make)
    self.representation = (
      pixel_head(channels, decoder_dim, embedding_dim, make) if embedding_dim else None
    )

  def __call__(self, images: jax.Array, train: bool) -> Outputs:
    """images [B,H,W,3], normalised."""
    features = self.resnet(images, train)
    high = self.ASPP(features.high, train)
    low = self.project(features.low, train)
    high = resize_bilinear(high, low.shape[1:3], align_corners=True)
    x = jnp.concatenate([low, high], axis=-1)
    embedding = None if self.representation is None else self.representation(x, train)
    return Outputs(self.classifier(x, train), embedding)


class DeepLabV2(nnx.Module):
  """ReCo's DeepLabV2: outputs at the trunk's stride."""

  def __init__(
    self,
    trunk: ResNet,
    num_classes: int,
    embedding_dim: int | None,
    rates: Sequence[int],
    make: Make,
  ):
    self.resnet = trunk
    self.classifier = SummedConvs(trunk.channels, num_classes, rates, make)
    self.representation = (
      Sequential([make.conv(trunk.channels, embedding_dim, 1, use_bias=True, dtype=jnp.float32)])
      if embedding_dim
      else None
    )

  def __call__(self, images: jax.Array, train: bool) -> Outputs:
    """images [B,H,W,3], normalised."""
    x = self.resnet(images, train).high
    embedding = None if self.representation is None else self.representation(x, train)
    return Outputs(self.classifier(x), embedding)


ASPP_RATES = {  # by network and output stride; the first stride is the default
  "deeplabv3p": {16: (6, 12, 18), 8: (12, 24, 36)},
  "deeplabv2": {8: (6, 12, 18, 24)},
}


def create(
  name: str,
  *,
  num_classes: int,
  backbone: str = "resnet101",
  embedding_dim: int | None = None,
  output_stride: int | None = None,
  width: int = 64,
  decoder_dim: int = 256,
  dtype: jax.typing.DTypeLike = jnp.float32,
  axis_name: str | None = None,
  remat: bool = False,
  seed: int = 0,
) -> nnx.Module:
  """A network from scratch: module(images, train) -> Outputs. Its weights are numpy arrays.

  name: deeplabv3p | deeplabv2. backbone: resnet18 | resnet34 | resnet50 | resnet101.
  embedding_dim: of the representation head; None for none.
  output_stride: of the trunk; 16 or 8 for deeplabv3p, 8 for deeplabv2; None for the first of these.
  width: of the trunk's stem, 64 as published. decoder_dim: of deeplabv3p's ASPP and heads.
  dtype: of convolutions and activations; weights, BatchNorm and outputs are float32 anyway.
  axis_name: the mesh axis over which BatchNorm is synchronised. remat: recompute the trunk's blocks
  in the backward pass. Raises ValueError for a name, backbone or stride that is not there.
  """
  _check_choice("name", name, ASPP_RATES)
  _check_choice("backbone", backbone, BACKBONES)
  rates = ASPP_RATES[name]
  output_stride = next(iter(rates)) if output_stride is None else output_stride
  _check_choice(f"output_stride of {name}", output_stride, rates)
  rng = np.random.default_rng(seed)
  trunk_layers = make_layers(rng, dtype, axis_name, init=he_normal_fan_out)
  trunk = ResNet(backbone, output_stride, width, trunk_layers, remat)
  make = make_layers(rng, dtype, axis_name)
  if name == "deeplabv2":
    return DeepLabV2(trunk, num_classes, embedding_dim, rates[output_stride], make)
  return DeepLabV3Plus(trunk, num_classes, embedding_dim, rates[output_stride], decoder_dim, make)


def _check_choice(what: str, value: Any, allowed: Collection) -> None:
  if value not in allowed:
    raise ValueError(f"{what} is {value!r}: choose from {', '.join(map(str, allowed))}")


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
  """(graphdef, params, batch_stats): what the module is, and its arrays as nested dicts.

  Keys are strings: params["resnet"]["layer1"]["0"]["conv1"]["kernel"].
  """
  graphdef, params, batch_stats = nnx.split(module, nnx.Param, nnx.BatchStat)
  return graphdef, _to_dict(params), _to_dict(batch_stats)


def forward(
  graphdef: nnx.GraphDef, params: Tree, batch_stats: Tree, images: jax.Array, train: bool
) -> tuple[Outputs, Tree]:
  """Runs a network; (its outputs, batch_stats after this batch: unchanged unless train)."""
  trees = (nnx.restore_int_paths(tree) for tree in (params, batch_stats))
  module = nnx.merge(graphdef, *trees, copy=True)
  outputs = module(images, train)
  return outputs, _to_dict(nnx.state(module, nnx.BatchStat))


def _to_dict(state: nnx.State) -> Tree:
  return _string_keys(nnx.to_pure_dict(state))


def _string_keys(tree: Any) -> Any:
  if not isinstance(tree, dict):
    return tree
  return {str(key): _string_keys(value) for key, value in tree.items()}
