"""A network of a few thousand weights, and runs of the train step with it on any device count."""

import contextlib
import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from semiseg_jax import networks
from semiseg_jax.augment import memory_bank, views
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Facts, Method, TrainState
from semiseg_jax.labels import IGNORE
from semiseg_jax.methods import METHODS, make_method
from semiseg_jax.models.layers import BatchNorm, Conv, Maker
from semiseg_jax.models.network import Network, Outputs, Segmenter, Variables, split_network
from semiseg_jax.models.normalization import Normalization
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.runtime.mesh import make_mesh, shard_batch
from semiseg_jax.training.start import Start
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import make_train_step

CLASSES, ROWS, SIZE = 5, 8, 32
LEVELS = Normalization((0.0, 0.0, 0.0))  # as they are
OPTIMIZER = optax.sgd(0.05, momentum=0.9, nesterov=True)


class TinyNet(Segmenter):
  """Two strided convolutions with BatchNorm and 1x1 heads, as the recorded runs of ReCo have it."""

  channels = (8, 16)

  def __init__(self, num_classes: int, embedding_dim: int | None, maker: Maker):
    rng, axis_name = maker.rng, maker.axis_name
    self.conv1 = Conv(3, 8, 3, rng=rng, stride=2, padding=1)
    self.bn1 = BatchNorm(8, axis_name=axis_name)
    self.conv2 = Conv(8, 16, 3, rng=rng, stride=2, padding=1)
    self.bn2 = BatchNorm(16, axis_name=axis_name)
    self.feature_dim = 16
    head = lambda channels: Conv(16, channels, 1, rng=rng, use_bias=True)
    self.classifier = head(num_classes)
    self.representation = head(embedding_dim) if embedding_dim else None

  def encode(self, images: jax.Array, train: bool, keys: jax.Array | None = None):
    shallow = nnx.relu(self.bn1(self.conv1(images), train))
    return shallow, nnx.relu(self.bn2(self.conv2(shallow), train))

  def decode(self, features, size, train: bool, keys: jax.Array | None = None) -> Outputs:
    x = features[-1]
    embedding = self.representation(x) if self.representation else None
    return Outputs(self.classifier(x), embedding, x)


@dataclasses.dataclass(frozen=True)
class Given:
  """A function (params, batch_stats, images) -> logits where a `Network` is wanted."""

  function: Callable[..., jax.Array]
  align_corners: bool = True
  normalization: Normalization = LEVELS

  def __call__(self, params, batch_stats, images, train):
    assert train is False
    return Outputs(self.function(params, batch_stats, images)), batch_stats

  def resize(self, logits, size):
    return resize_bilinear(logits, size, self.align_corners)


def tiny_network(
  heads: dict[str, int], seed: int = 0, num_classes: int = CLASSES
) -> tuple[Variables, Network]:
  """TinyNet with the heads that a method wants."""
  maker = Maker(np.random.default_rng(seed), axis_name=DATA_AXIS)
  module = TinyNet(num_classes, heads.get("representation"), maker)
  networks.add_heads(module, heads, num_classes, maker)
  return split_network(module)


def tiny_start(method: Method, num_classes: int = CLASSES) -> Start:
  """TinyNet as a run of the method starts with it."""
  make = lambda seed: tiny_network(method.heads(), seed, num_classes)[0]
  return Start(*tiny_network(method.heads(), 0, num_classes), make)


def tiny_state(method: Method, optimizer, devices: int) -> tuple[TrainState, jax.sharding.Mesh]:
  """A fresh state on the first `devices` virtual devices."""
  mesh = make_mesh(jax.devices()[:devices])
  return make_state(tiny_start(method), method, optimizer, facts_of(), 0, mesh), mesh


def facts_of(num_classes: int = CLASSES, rows: int = ROWS) -> Facts:
  """A run of 200 steps on 16 labelled and 32 unlabelled images."""
  return Facts(num_classes, 200, 16, 32, rows, rows)


def random_batch(
  rows: int = ROWS,
  size: int = SIZE,
  num_classes: int = CLASSES,
  seed: int = 0,
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

  batch = {name: part() for name in streams}
  if "unlabeled" in batch:  # a second view, which some transforms make, and pseudo-labels' maps
    images = batch["unlabeled"]["image"]
    batch["unlabeled"]["strong"] = 255 - images
    batch["unlabeled"]["confidence"] = np.float32(images[..., 0] / 255)
  return batch


def batches_of(method: Method, count: int = 2, domain: bool = False) -> list[dict]:
  """A random batch for each of so many steps, with the streams that the method wants.

  With seeds under which no ReLU is at 0 to within rounding: it would change a gradient by 1e-5.
  """
  streams = (*method.streams, *(["domain"] if domain else []))
  sparse = getattr(method, "partial", False)
  return [random_batch(seed=seed, sparse=sparse, streams=streams) for seed in range(10, 10 + count)]


def run_steps(
  method: Method, devices: int, batches: list[dict], optimizer=OPTIMIZER
) -> tuple[TrainState, dict[str, Any]]:
  """State and metrics after one update per batch, on `devices` devices; compiled once."""
  state, mesh = tiny_state(method, optimizer, devices)
  step = compiled_step(method, optimizer, devices)
  before = step._cache_size()
  for batch in batches:
    state, metrics = step(state, shard_batch(batch, mesh))
  assert step._cache_size() <= before + 1
  return state, metrics


@functools.cache
def compiled_step(method: Method, optimizer, devices: int):
  """The train step of a method on so many devices, shared by all tests of a process."""
  step = make_train_step(method, optimizer, make_mesh(jax.devices()[:devices]))

  def with_plain_colors(state, batch):
    with plain_colors():
      return step(state, batch)

  with_plain_colors._cache_size = step._cache_size
  return with_plain_colors


@contextlib.contextmanager
def plain_colors() -> Iterator[None]:
  """What is traced here changes colours by a few operations instead of a thousand.

  They depend on all that is drawn for an image. tests/augment has the real ones on N devices.
  """

  def changed(images, factors, order):
    brightness, contrast, saturation, hue = (x[:, None, None, None] for x in factors)
    turned = jnp.where(order[..., :1, None, None] < 2, images, images[..., ::-1])
    return turned * brightness * contrast * saturation / 2 + 255 * hue

  def jitter(images, draws):
    return jnp.where(draws.on[:, None, None, None], changed(images, draws[1:5], draws[5]), images)

  def blur(images, draws, max_sigma=None):
    return jnp.where(
      draws.on[:, None, None, None], images * draws.sigma[:, None, None, None], images
    )

  with (
    mock.patch.multiple(views, color_jitter=jitter, gaussian_blur=blur),
    mock.patch.multiple(
      memory_bank,
      jitter_colors=lambda images, colors: changed(images, colors[:4], colors.order),
      gaussian_blur=lambda images, sigma: images * sigma.mean(),
    ),
  ):
    yield


def small_methods() -> dict[str, dict[str, Any]]:
  """{"METHOD/VARIANT": config.method} of every method there is, fit for a few steps of TinyNet.

  Each method's test module, tests/methods/test_METHOD.py, says its own in SMALL: {variant: values}.
  """
  found = {}
  for name in METHODS:
    module = importlib.import_module(f"tests.methods.test_{name}")
    for variant, values in module.SMALL.items():
      make_method(config := {"name": name, **values})
      found[f"{name}/{variant}"] = config
  return found
