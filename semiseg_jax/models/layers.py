"""The layers of the networks, with PyTorch's semantics on NHWC arrays.

Weights are made on the host with numpy: a network exists at once, without compiling anything.
Parameters and statistics are float32; `dtype` is what a convolution computes in.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from semiseg_jax.collectives import device_count
from semiseg_jax.models.batch_norm import normalise, normalise_batch
from semiseg_jax.models.convolution import conv, conv_transpose
from semiseg_jax.models.dilated import dilated_conv

Init = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

BATCH_NORM_MOMENTUM = 0.1  # the weight of the new batch in the running statistics


def uniform_fan_in(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
  """PyTorch's default for convolutions, weight and bias alike: uniform in +-1/sqrt(fan_in)."""
  x = rng.random(shape, np.float32)
  x *= 2
  x -= 1
  x /= np.float32(math.sqrt(fan_in))
  return x


def he_normal_fan_out(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  """The trunk's initialisation (He et al. 2015): normal with variance 2/fan_out; shape HWIO."""
  fan_out = shape[0] * shape[1] * shape[3]
  return normal(math.sqrt(2 / fan_out))(rng, shape)


def he_normal_fan_in(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  """Normal with variance 2/fan_in; shape HWIO."""
  return normal(math.sqrt(2 / math.prod(shape[:3])))(rng, shape)


def normal(std: float) -> Init:
  def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    x = rng.standard_normal(shape, np.float32)
    x *= np.float32(std)
    return x

  return draw


class Frozen(nnx.Param):
  """A parameter that stays as it was loaded: no gradient, and no weight decay either."""


def _weights(
  rng: np.random.Generator,
  shape: tuple[int, ...],
  fan_in: int,
  bias_size: int | None,
  init: Init | None,
  trained: bool,
) -> tuple[nnx.Param, nnx.Param | None]:
  """A convolution's kernel and, if it has a size, its bias."""
  param = nnx.Param if trained else Frozen
  kernel = param(init(rng, shape) if init else uniform_fan_in(rng, shape, fan_in))
  return kernel, param(uniform_fan_in(rng, (bias_size,), fan_in)) if bias_size else None


def freeze(module: nnx.Module) -> None:
  """Its parameters are not trained from now on."""
  for _, part in nnx.iter_modules(module):
    for name, value in vars(part).items():
      if type(value) is nnx.Param:
        setattr(part, name, Frozen(value[...]))


class Conv(nnx.Module):
  """Convolution with symmetric zero padding; kernel HWIO.

  size, padding: of both sides, or (vertical, horizontal). groups: of channels, each convolved
  alone. init: of the kernel; PyTorch's default without one, which the bias always has. trained:
  whether the parameters are; if not they are `Frozen`.
  """

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    size: int | tuple[int, int],
    *,
    rng: np.random.Generator,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
    use_bias: bool = False,
    dtype: jax.typing.DTypeLike = jnp.float32,
    init: Init | None = None,
    trained: bool = True,
  ):
    in_channels //= groups
    height, width = size if isinstance(size, tuple) else (size, size)
    shape, fan_in = (height, width, in_channels, out_channels), height * width * in_channels
    bias_size = out_channels if use_bias else None
    self.kernel, self.bias = _weights(rng, shape, fan_in, bias_size, init, trained)
    self.padding = padding if isinstance(padding, tuple) else (padding, padding)
    self.stride, self.dilation = stride, dilation
    self.dtype = jnp.dtype(dtype)

  def __call__(self, x: jax.Array) -> jax.Array:
    """x [B,H,W,I] -> [B,H',W',O] in the layer's dtype."""
    x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
    kept = tuple(self.dilation * (n // 2) for n in kernel.shape[:2])
    keeps_size = self.stride == 1 and self.padding == kept
    if self.dilation > 1 and keeps_size:
      y = dilated_conv(x, kernel, self.dilation)
    else:
      y = conv(x, kernel, self.padding, self.stride, self.dilation)
    return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class ConvTranspose(nnx.Module):
  """The transpose of a square convolution, which makes images larger; kernel [k,k,O,I].

  Side n becomes (n - 1) stride - 2 padding + size + extra. init, trained: as in `Conv`.
  """

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    size: int,
    *,
    rng: np.random.Generator,
    stride: int = 2,
    padding: int = 0,
    extra: int = 0,
    use_bias: bool = False,
    dtype: jax.typing.DTypeLike = jnp.float32,
    init: Init | None = None,
    trained: bool = True,
  ):
    shape, fan_in = (size, size, out_channels, in_channels), size * size * out_channels
    bias_size = out_channels if use_bias else None
    self.kernel, self.bias = _weights(rng, shape, fan_in, bias_size, init, trained)
    self.stride, self.pads = stride, (size - 1 - padding, size - 1 - padding + extra)
    self.dtype = jnp.dtype(dtype)

  def __call__(self, x: jax.Array) -> jax.Array:
    """x [B,H,W,I] -> [B,H',W',O] in the layer's dtype."""
    x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
    y = conv_transpose(x, kernel, self.pads, self.stride)
    return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class PReLU(nnx.Module):
  """x where it is above 0, else x times a learnt slope, of each of the channels or one of all."""

  def __init__(self, channels: int = 1):
    self.scale = nnx.Param(np.full(channels, 0.25, np.float32))

  def __call__(self, x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, x * self.scale[...].astype(x.dtype))


class Linear(nnx.Module):
  """A linear layer on the last axis; kernel [I,O], bias [O], both with PyTorch's initialisation."""

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    *,
    rng: np.random.Generator,
    dtype: jax.typing.DTypeLike = jnp.float32,
  ):
    self.kernel = nnx.Param(uniform_fan_in(rng, (in_channels, out_channels), in_channels))
    self.bias = nnx.Param(uniform_fan_in(rng, (out_channels,), in_channels))
    self.dtype = jnp.dtype(dtype)

  def __call__(self, x: jax.Array) -> jax.Array:
    """x [...,I] -> [...,O] in the layer's dtype."""
    y = jnp.matmul(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
    return y + self.bias[...].astype(self.dtype)


class BatchNorm(nnx.Module):
  """BatchNorm over all axes but the last, as PyTorch has it.

  Normalises with the biased variance, averages the unbiased one: new = 0.9 old + 0.1 batch.
  With axis_name the batch is that of all devices of the axis. trained: whether scale and bias are;
  if not they are `Frozen`, while the running statistics move all the same. bias: its initial value.
  moves: False if it computes in training as in evaluation.
  """

  moves = True

  def __init__(
    self,
    channels: int | tuple[int, ...],
    *,
    axis_name: str | None = None,
    trained: bool = True,
    bias: float = 0.0,
  ):
    param = nnx.Param if trained else Frozen
    self.scale = param(np.ones(channels, np.float32))
    self.bias = param(np.full(channels, bias, np.float32))
    self.mean = nnx.BatchStat(np.zeros(channels, np.float32))
    self.var = nnx.BatchStat(np.ones(channels, np.float32))
    self.axis_name = axis_name

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """x [...,C], normalised in float32, returned in its own dtype.

    Raises ValueError for a training batch with a single value per channel, which has no variance.
    """
    scale, bias = self.scale[...], self.bias[...]
    if not (train and self.moves):
      return normalise(x, self.mean[...], self.var[...], scale, bias)
    count = x.size // x.shape[-1] * device_count(self.axis_name)
    if count == 1:
      raise ValueError(
        "BatchNorm has one value per channel to train on (a pooled batch of 1 image): "
        "use at least 2 images per batch"
      )
    y, mean, var = normalise_batch(x, scale, bias, self.mean[...], self.axis_name)
    self.average(mean, var * (count / (count - 1)))
    return y

  def average(
    self, mean: jax.Array, unbiased_var: jax.Array, moves: jax.Array | bool = True
  ) -> None:
    """Takes a batch into the running statistics, if it moves them."""
    for running, batch in ((self.mean, mean), (self.var, unbiased_var)):
      old = running[...]
      average = (1 - BATCH_NORM_MOMENTUM) * old + BATCH_NORM_MOMENTUM * batch
      if moves is not True:
        average = jnp.where(moves, average, old)
      # `running[...] =` would write into numpy's array
      running.set_value(lax.stop_gradient(average))


def freeze_statistics(module: nnx.Module) -> None:
  """Its BatchNorms compute in training as in evaluation from now on."""
  for _, part in nnx.iter_modules(module):
    if isinstance(part, BatchNorm):
      part.moves = False


class Maker(NamedTuple):
  """How a network's layers are made, and what they compute in.

  rng: of their initialisation. dtype: of convolutions and activations; weights, BatchNorm and
  outputs are float32 anyway. axis_name: the mesh axis over which BatchNorm is synchronised. remat:
  what of the trunk is recomputed in the backward pass: none | elementwise (BatchNorm, ReLU and
  sums; convolutions' outputs are kept) | blocks (all but a block's input). init: of convolutions'
  kernels; PyTorch's default without one. train_convs, train_norms: whether their parameters are.
  norm_bias: initial biases of BatchNorms.
  """

  rng: np.random.Generator
  dtype: jax.typing.DTypeLike = jnp.float32
  axis_name: str | None = None
  remat: str = "none"
  init: Init | None = None
  train_convs: bool = True
  train_norms: bool = True
  norm_bias: float = 0.0

  def conv(self, *sizes: int, **options: Any) -> Conv:
    return Conv(*sizes, **{**self._of_convs, **options})

  def conv_transpose(self, *sizes: int, **options: Any) -> ConvTranspose:
    return ConvTranspose(*sizes, **{**self._of_convs, **options})

  @property
  def _of_convs(self) -> dict[str, Any]:
    own = {"rng": self.rng, "dtype": self.dtype, "init": self.init}
    return own | {"trained": self.train_convs}

  def norm(self, channels: int) -> BatchNorm:
    options = {"trained": self.train_norms, "bias": self.norm_bias}
    return BatchNorm(channels, axis_name=self.axis_name, **options)


class SeparableConv(nnx.Module):
  """Each channel's own 3x3, BatchNorm, and a 1x1 (Chollet 2017)."""

  def __init__(
    self, channels: int, out_channels: int, make: Maker, stride: int = 1, dilation: int = 1
  ):
    options = {"stride": stride, "padding": dilation, "dilation": dilation, "groups": channels}
    self.conv1 = make.conv(channels, channels, 3, **options)
    self.bn = make.norm(channels)
    self.pointwise = make.conv(channels, out_channels, 1)

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    return self.pointwise(self.bn(self.conv1(x), train))


class Sequential(nnx.List):
  """Layers, plain functions among them, numbered as in the originals' state dicts."""

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    for layer in self:
      x = call_layer(layer, x, train)
    return x


def call_layer(layer: Callable, x: jax.Array, train: bool) -> jax.Array:
  """layer(x), which is told of training if it asks."""
  return layer(x, train) if isinstance(layer, BatchNorm | SeparableConv) else layer(x)


def dropout(
  x: jax.Array, rate: float, keys: jax.Array | None, *, whole_channels: bool = False
) -> jax.Array:
  """Each value of x [B,...,C] is 0 with probability rate, the others are divided by 1 - rate.

  keys: [B], one for each image; without them x comes back as it is. whole_channels: a channel of an
  image is dropped as a whole.
  """
  if keys is None:
    return x
  shape = (1,) * (x.ndim - 2) + x.shape[-1:] if whole_channels else x.shape[1:]
  draw_kept = lambda key: jax.random.bernoulli(key, 1 - rate, shape)
  return jnp.where(jax.vmap(draw_kept)(keys), x / (1 - rate), 0)


def split_keys(keys: jax.Array | None) -> tuple[jax.Array | None, jax.Array | None]:
  """Keys [B] for dropout in two places; None for both without keys."""
  return (None, None) if keys is None else tuple(jax.vmap(jax.random.split, out_axes=1)(keys))


def max_pool(
  x: jax.Array, size: int, stride: int, padding: int = 0, ceil_mode: bool = False
) -> jax.Array:
  """Max-pool of x [B,H,W,C]; padding never wins.

  ceil_mode: a last window may hang over the right or bottom edge, if it starts inside the input or
  its left padding.
  """
  pads = [_pool_padding(n, size, stride, padding, ceil_mode) for n in x.shape[1:3]]
  return nnx.max_pool(x, (size, size), (stride, stride), pads)


def _pool_padding(n: int, size: int, stride: int, padding: int, ceil_mode: bool) -> tuple[int, int]:
  if not ceil_mode:
    return padding, padding
  windows = -(-(n + 2 * padding - size) // stride) + 1
  if (windows - 1) * stride >= n + padding:
    windows -= 1
  return padding, max(padding, (windows - 1) * stride + size - n - padding)
