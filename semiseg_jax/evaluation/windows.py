"""Evaluation through windows of one size that lie inside their pictures, as UniMatch has it.

Unlike prediction's sliding windows (sliding.py), of pytorch-segmentation, which are cut at the
edges and whose logits are averaged, it adds up probabilities, all in one program.
"""

import itertools

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax.evaluation.inference import whole
from semiseg_jax.models.network import Network, Size, Variables

_SMALLEST = 1e-30  # a probability in a logarithm


def window_starts(side: int, window: int) -> tuple[int, ...]:
  """Where windows start along a side: every two thirds of one, the last moved back to fit."""
  starts = [0]
  while starts[-1] + window < side:
    starts.append(min(starts[-1] + int(window * 2 / 3), side - window))
  return tuple(starts)


def seen(
  network: Network, variables: Variables, images: jax.Array, size: Size, window: Size | None
) -> jax.Array:
  """Logits [B,*size,K] of levels [B,H,W,3]: `whole`, or through windows where there is a size."""
  if window is None:
    return whole(network, variables, images, size)
  return network.resize(windowed(network, variables, images, window), size)


def windowed(network: Network, variables: Variables, images: jax.Array, window: Size) -> jax.Array:
  """The logarithm of the windows' mean probabilities [B,H,W,K] of RGB levels [B,H,W,3].

  Along a side shorter than a window the window is that short.
  """
  size = images.shape[1:3]
  window = tuple(map(min, window, size))
  starts = jnp.asarray(list(itertools.product(*map(window_starts, size, window))))

  def see(start: jax.Array) -> jax.Array:
    part = lax.dynamic_slice_in_dim(images, start[0], window[0], 1)
    part = lax.dynamic_slice_in_dim(part, start[1], window[1], 2)
    return jax.nn.softmax(whole(network, variables, part).astype(jnp.float32))

  def add(sums: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
    probs = see(start)
    place = (0, start[0], start[1], 0)
    there = lax.dynamic_slice(sums, place, probs.shape)
    return lax.dynamic_update_slice(sums, there + probs, place), None

  classes = jax.eval_shape(see, starts[0]).shape[-1]
  # which inside shard_map varies as the images do
  zeros = jnp.zeros((*images.shape[:3], classes)) + 0.0 * images[..., :1]
  sums, _ = lax.scan(add, zeros, starts)
  return jnp.log(jnp.maximum(sums / sums.sum(-1, keepdims=True), _SMALLEST))
