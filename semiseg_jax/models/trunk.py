"""Encoders as configs describe them, and what they share."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
from flax import nnx

from semiseg_jax.models.batch_norm import MOMENTS
from semiseg_jax.models.layers import Init, Maker, he_normal_fan_out
from semiseg_jax.values import Channels


class Style(NamedTuple):
  """What an original does its own way; the defaults are torchvision's.

  stride_in_1x1: a bottleneck's stride is in its first 1x1 instead of its 3x3 (as in Caffe's
  weights). dilate_first: the first block of a stage that gave up its stride is dilated like the
  others instead of half as much. ceil_pool: max-pools round the size up (a stem's to n/2 + 1 of an
  even n). hybrid_dilation: blocks of a stage that gave up its stride have dilations 1, 2, 3 in
  turn, of the next such stage 3, 4, 5 (Wang et al. 2018). trunk_init and init: of the kernels in
  the trunk and elsewhere; PyTorch's default without one. train_norms: whether scales and biases of
  the trunk's BatchNorms are trained. norm_bias: initial biases of the others.
  """

  stride_in_1x1: bool = False
  dilate_first: bool = False
  ceil_pool: bool = False
  hybrid_dilation: bool = False
  trunk_init: Init = he_normal_fan_out
  init: Init | None = None
  train_norms: bool = True
  norm_bias: float = 0.0


@dataclasses.dataclass(frozen=True)
class Trunk:
  """What every encoder's description inherits.

  Its module takes normalised images [B,H,W,3] and train, gives a tuple of features, shallow to
  deep, and has their `channels`. width: channels of its first layer; all others scale with it.
  ONE_STRIDE: whether its features all have the same, whatever the network's output_stride.
  """

  name: str = ""
  width: Channels = 64

  ONE_STRIDE: ClassVar[bool] = False

  def build(self, output_stride: int, style: Style, make: Maker) -> nnx.Module:
    """The module with fresh weights."""
    raise NotImplementedError


def _is_costly(operation: Any, *args: Any, **params: Any) -> bool:
  """Of a convolution, a linear layer or a GPU's fused attention, but not attention's own; and of
  BatchNorm's moments, which are small."""
  dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
  whole = ("conv_general_dilated", "dot_product_attention_fwd_wrapper")
  return (
    operation.name in whole
    or dots(operation, *args, **params)
    or (operation.name == "name" and params["name"] == MOMENTS)
  )


# What may be kept of a block for the backward pass, by the name of what is recomputed.
REMAT = {
  "none": None,
  "elementwise": _is_costly,
  "blocks": jax.checkpoint_policies.nothing_saveable,
}


def run_block(block: nnx.Module, x: jax.Array, train: bool, remat: str) -> jax.Array:
  """block(x, train); remat: a key of REMAT."""
  run = lambda block, x: block(x, train)
  return (run if remat == "none" else nnx.remat(run, policy=REMAT[remat]))(block, x)
