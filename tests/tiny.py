"""A network of a few thousand weights, and runs of the train step with it on any device count."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from semiseg_jax.contract import Facts, Method, TrainState
from semiseg_jax.labels import IGNORE
from semiseg_jax.methods import make_method
from semiseg_jax.models.layers import BatchNorm, Conv
from semiseg_jax.models.network import Network, Outputs, Segmenter, Variables, split_network
from semiseg_jax.models.normalization import NORMALIZATIONS
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.models.rows import RowHead
from semiseg_jax.models.selectors import ClassSelectors
from semiseg_jax.runtime.mesh import make_mesh, shard_batch
from semiseg_jax.training.start import Start
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import make_train_step

EMBEDDING = 8  # width of TinyNet's representation
HEADS = 12  # width of ToyNet's heads on rows


class TinyNet(Segmenter):
  """Two strided convolutions with BatchNorm and two 1x1 heads, as the recorded runs have it."""

  feature_dim = 16

  def __init__(
    self,
    num_classes: int,
    embedding_dim: int = EMBEDDING,
    axis_name: str | None = "data",
    seed: int = 0,
  ):
    rng = np.random.default_rng(seed)
    self.conv1 = Conv(3, 8, 3, rng=rng, stride=2, padding=1)
    self.bn1 = BatchNorm(8, axis_name=axis_name)
    self.conv2 = Conv(8, 16, 3, rng=rng, stride=2, padding=1)
    self.bn2 = BatchNorm(16, axis_name=axis_name)
    self.classifier = Conv(16, num_classes, 1, rng=rng, use_bias=True)
    self.representation = Conv(16, embedding_dim, 1, rng=rng, use_bias=True)

  def encode(self, images, train, keys=None):
    return _two_layers(self, images, train)

  def decode(self, features, size, train, keys=None):
    x = features[-1]
    return Outputs(self.classifier(x), self.representation(x), x)


class ToyNet(Segmenter):
  """Two convolutions, a classifier, heads on rows: as the memory bank's recorded runs have it."""

  feature_dim = 8

  def __init__(
    self, num_classes: int, dim: int = HEADS, axis_name: str | None = "data", seed: int = 0
  ):
    rng = np.random.default_rng(seed)
    heads = {"rng": rng, "axis_name": axis_name}
    self.conv1 = Conv(3, 8, 3, rng=rng, stride=2, padding=1)
    self.bn1 = BatchNorm(8, axis_name=axis_name, trained=False)
    self.conv2 = Conv(8, 8, 3, rng=rng, padding=1)
    self.bn2 = BatchNorm(8, axis_name=axis_name, trained=False)
    self.layer5 = Conv(8, num_classes, 1, rng=rng, use_bias=True)
    self.projection_head = RowHead(8, dim, **heads)
    self.prediction_head = RowHead(dim, dim, **heads)
    self.selectors = ClassSelectors(num_classes, dim, **heads)
    self.memory_selectors = ClassSelectors(num_classes, dim, **heads)

  def encode(self, images, train, keys=None):
    return _two_layers(self, images, train)

  def decode(self, features, size, train, keys=None):
    return Outputs(self.layer5(features[-1]), features=features[-1])


def _two_layers(net: Segmenter, images: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
  first = nnx.relu(net.bn1(net.conv1(images), train))
  return first, nnx.relu(net.bn2(net.conv2(first), train))


@dataclasses.dataclass(frozen=True)
class Given:
  """A function (params, batch_stats, images) -> logits where a `Network` is wanted."""

  function: Callable[..., jax.Array]
  align_corners: bool = True

  def __call__(self, params, batch_stats, images, train):
    assert train is False
    return Outputs(self.function(params, batch_stats, images)), batch_stats

  def resize(self, logits, size):
    return resize_bilinear(logits, size, self.align_corners)


def network_for(method: Method, num_classes: int, seed: int = 0) -> tuple[Variables, Network]:
  """A tiny network with the heads that the method wants."""
  heads = method.heads()
  if "selectors" in heads:
    return split_network(ToyNet(num_classes, heads["selectors"], seed=seed))
  return split_network(TinyNet(num_classes, heads.get("representation", EMBEDDING), seed=seed))


def toy_network(num_classes: int, normalization: str = "imagenet") -> tuple[Variables, Network]:
  return split_network(ToyNet(num_classes), NORMALIZATIONS[normalization])


def start_for(method: Method, num_classes: int, variables: Variables | None = None) -> Start:
  """A run's start with that network, with these arrays in the place of its own."""
  fresh, network = network_for(method, num_classes)
  make = lambda seed: network_for(method, num_classes, seed)[0]
  return Start(variables or fresh, network, make)


def tiny_state(
  method: Method,
  optimizer: optax.GradientTransformation,
  devices: int,
  num_classes: int = 5,
  variables: Variables | None = None,
) -> tuple[TrainState, jax.sharding.Mesh]:
  """A fresh state on the first `devices` virtual devices."""
  start, mesh = start_for(method, num_classes, variables), make_mesh(jax.devices()[:devices])
  return make_state(start, method, optimizer, facts_of(num_classes), 0, mesh), mesh


def facts_of(num_classes: int) -> Facts:
  """A run of 20 steps on 16 labelled and 32 unlabelled images."""
  return Facts(num_classes, 20, 16, 32, 8, 8)


def random_batch(
  rows: int,
  size: int,
  num_classes: int,
  seed: int,
  sparse: bool = False,
  streams: tuple[str, ...] = ("labeled", "unlabeled"),
) -> dict:
  """Blocky random scenes for every stream, with positions as the input pipeline gives them."""
  rng = np.random.default_rng(seed)

  def part() -> dict[str, np.ndarray]:
    coarse = rng.integers(0, num_classes, (rows, size // 4, size // 4))
    label = coarse.repeat(4, 1).repeat(4, 2).astype(np.uint8)
    image = (label[..., None] * 40 + rng.integers(0, 60, (*label.shape, 3))).astype(np.uint8)
    keep = rng.random(label.shape) < (0.05 if sparse else 0.9)
    return {
      "image": image,
      "label": np.where(keep, label, IGNORE).astype(np.uint8),
      "position": (np.arange(rows) + seed * rows).astype(np.int32),
    }

  return {name: part() for name in streams}


def run_steps(
  config: dict[str, Any],
  optimizer: optax.GradientTransformation,
  devices: int,
  batches: list[dict],
) -> TrainState:
  """The state after one update per batch, on `devices` devices."""
  method = make_method(config)
  state, mesh = tiny_state(method, optimizer, devices)
  step = make_train_step(method, optimizer, mesh)
  for batch in batches:
    batch = {name: part for name, part in batch.items() if name in (*method.streams, "domain")}
    state, _ = step(state, shard_batch(batch, mesh))
  assert step._cache_size() == 1
  return state
