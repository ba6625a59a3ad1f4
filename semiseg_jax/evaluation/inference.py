"""From a network and pictures of any size to logits on the pictures' own grid."""

import jax
import jax.numpy as jnp

from semiseg_jax.models.network import Network, Variables

MULTIPLE = 32  # prediction reflects pictures at right and bottom up to a multiple of it


def whole(
  network: Network, variables: Variables, images: jax.Array, size: tuple[int, int] | None = None
) -> jax.Array:
  """Logits [B,*size,K] of RGB levels [B,H,W,3] seen whole, in evaluation mode.

  size: default (H, W). Inside or outside jit; H and W may be symbols.
  """
  outputs, _ = network(*variables, images, train=False)
  return network.resize(outputs.logits, size or images.shape[1:3])


def whole_reflected(network: Network, variables: Variables, images: jax.Array) -> jax.Array:
  """Logits [B,H,W,K] of levels [B,H,W,3] that the network sees reflected to `padded_size`."""
  height, width = size = images.shape[1:3]
  padded = reflect_to(images, padded_size(size))
  return whole(network, variables, padded)[:, :height, :width]


def padded_size(size: tuple[int, int], multiple: int = MULTIPLE) -> tuple[int, int]:
  """(height, width) raised to multiples."""
  return tuple(raised(side, multiple) for side in size)


def raised(side: int, multiple: int) -> int:
  """The next multiple; of symbols, too."""
  return (side + multiple - 1) // multiple * multiple


def reflect_to(images: jax.Array, size: tuple[int, int]) -> jax.Array:
  """[B,H,W,C] -> [B,*size,C] as `transforms.geometry.reflect_to`, on the device."""
  for axis, (side, wanted) in enumerate(zip(images.shape[1:3], size, strict=True), 1):
    images = images.take(reflected_index(side, wanted), axis)
  return images


def reflected_index(side: int, wanted: int) -> jax.Array:
  """int [wanted]: places on an axis of that side, there and back, the ends not repeated.

  An index, since sides may be symbols.
  """
  period = jnp.maximum(2 * (side - 1), 1)  # a side of 1 has nowhere to go
  position = jnp.arange(wanted) % period
  return jnp.minimum(position, period - position)
