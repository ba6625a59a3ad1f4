"""A network: its module, its arrays, and what it is without them.

Module paths are the PyTorch originals' state-dict keys, except that the trunk is `trunk.` here and
`backbone.`, `resnet_` or nothing there, that all DeepLabs name their parts as ReCo's does, that the
selectors of all classes are one module, and that weights are called kernel, scale, mean and var.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx
from flax.traverse_util import unflatten_dict
from jax import lax

from semiseg_jax.models.layers import Frozen
from semiseg_jax.models.normalization import IMAGENET, Normalization, normalize
from semiseg_jax.models.resize import resize_bilinear

Tree = Any
Size = tuple[int, int]
Features = tuple[jax.Array, ...]  # shallow to deep
Keys = jax.Array | None  # [B], one for each image, for dropout in training; None drops nothing


class Outputs(NamedTuple):
  """What a network says of each pixel, at its own stride.

  logits [B,h,w,K] and embedding [B,h,w,D], not normalised: float32. features [B,h,w,C]: what the
  classifier reads, in the network's compute dtype, before any dropout. aux_logits [B,h,w,K]: of a
  second classifier on an earlier stage.
  """

  logits: jax.Array
  embedding: jax.Array | None = None
  features: jax.Array | None = None
  aux_logits: jax.Array | None = None


class Variables(NamedTuple):
  """What a network computes with: trained parameters and BatchNorm's running statistics."""

  params: Tree
  batch_stats: Tree


class Segmenter(nnx.Module):
  """What every network's module inherits: an encoder, a decoder, and both in one.

  align_corners: how its logits are resized, growth: to how many times their size first, as
  (numerator, denominator). feature_dim: channels of Outputs.features, None
  without any. late: names of its parts that may get their first gradient late in a run. per_class:
  of those whose arrays have the classes as their leading axis. representation: the head of
  Outputs.embedding, or None.
  """

  align_corners = True
  growth: tuple[int, int] = (1, 1)
  late: tuple[str, ...] = ()
  per_class: tuple[str, ...] = ()
  feature_dim: int | None = None
  representation: nnx.Module | None

  @property
  def channels(self) -> tuple[int, ...]:
    """Of the encoder's features, shallow to deep."""
    return self.trunk.channels

  def encode(self, images: jax.Array, train: bool, keys: Keys = None) -> Features:
    """Features of normalised images [B,H,W,3]."""
    return self.trunk(images, train)

  def decode(self, features: Features, size: Size, train: bool, keys: Keys = None) -> Outputs:
    """What the network says given its features; size: of the images."""
    raise NotImplementedError

  def embed(self, x: jax.Array, train: bool) -> jax.Array | None:
    return None if self.representation is None else self.representation(x, train)

  def __call__(self, images: jax.Array, train: bool, keys: Keys = None) -> Outputs:
    return self.decode(self.encode(images, train, keys), images.shape[1:3], train, keys)


@dataclasses.dataclass(frozen=True)
class Network:
  """A network without its arrays, and the input that its weights expect.

  Every call takes the arrays and returns the BatchNorm statistics after it beside its result;
  align_corners, late, per_class, growth: see `Segmenter`. frozen: paths of the parameters that are
  never trained.
  """

  graphdef: nnx.GraphDef
  normalization: Normalization = IMAGENET
  align_corners: bool = True
  frozen: tuple[tuple[str, ...], ...] = ()
  late: tuple[str, ...] = ()
  per_class: tuple[str, ...] = ()
  growth: tuple[int, int] = (1, 1)

  def __call__(
    self, params: Tree, batch_stats: Tree, images: jax.Array, train: bool, keys: Keys = None
  ) -> tuple[Outputs, Tree]:
    """Outputs for RGB levels [B,H,W,3]."""
    images = normalize(images, self.normalization)
    return self.apply(params, batch_stats, lambda module: module(images, train, keys))

  def encode(
    self, params: Tree, batch_stats: Tree, images: jax.Array, train: bool, keys: Keys = None
  ) -> tuple[Features, Tree]:
    """Features for RGB levels [B,H,W,3]."""
    images = normalize(images, self.normalization)
    return self.apply(params, batch_stats, lambda module: module.encode(images, train, keys))

  def decode(
    self,
    params: Tree,
    batch_stats: Tree,
    features: Features,
    size: Size,
    train: bool,
    keys: Keys = None,
  ) -> tuple[Outputs, Tree]:
    """Outputs for features of images of that size."""
    run = lambda module: module.decode(features, size, train, keys)
    return self.apply(params, batch_stats, run)

  def apply(
    self, params: Tree, batch_stats: Tree, function: Callable[[nnx.Module], Any]
  ) -> tuple[Any, Tree]:
    """function(module): any part of the network, which takes normalised images.

    The module is a copy that ends with the function: its results must be arrays.
    """
    frozen, names = set(self.frozen), lambda path: tuple(entry.key for entry in path)
    stop = lambda path, leaf: lax.stop_gradient(leaf) if names(path) in frozen else leaf
    trees = (jax.tree.map_with_path(stop, params), batch_stats)
    module = nnx.merge(self.graphdef, *map(nnx.restore_int_paths, trees), copy=True)
    result = function(module)
    return result, _to_dict(nnx.state(module, nnx.BatchStat))

  def resize(self, logits: jax.Array, size: Size) -> jax.Array:
    """Logits [B,h,w,K] as [B,H,W,K], bilinear."""
    times, parts = self.growth
    grown = tuple(side * times // parts for side in logits.shape[1:3])
    logits = resize_bilinear(logits, grown, align_corners=self.align_corners)
    return resize_bilinear(logits, size, align_corners=self.align_corners)

  def resized(self, outputs: Outputs, size: Size) -> tuple[jax.Array, jax.Array | None]:
    """Logits of both classifiers as [B,H,W,K]; None without a second one."""
    aux = outputs.aux_logits
    return self.resize(outputs.logits, size), None if aux is None else self.resize(aux, size)


def split_network(
  module: Segmenter, normalization: Normalization = IMAGENET
) -> tuple[Variables, Network]:
  """A fresh network's arrays, as nested dicts with string keys, and what it is without them."""
  graphdef, params, batch_stats = nnx.split(module, nnx.Param, nnx.BatchStat)
  paths = nnx.to_flat_state(nnx.state(module, Frozen)).paths
  frozen = tuple(tuple(map(str, path)) for path in paths)
  about = module.align_corners, frozen, module.late, module.per_class, module.growth
  variables = Variables(_to_dict(params), _to_dict(batch_stats))
  return variables, Network(graphdef, normalization, *about)


def _to_dict(state: nnx.State) -> Tree:
  flat = nnx.to_flat_state(state)
  return unflatten_dict({tuple(map(str, path)): leaf.get_value() for path, leaf in flat})
