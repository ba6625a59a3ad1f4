"""Losses of a sigmoid for each class by itself, after one-hot labels (pytorch-segmentation)."""

import jax
import jax.numpy as jnp
import optax

from semiseg_jax.collectives import psum
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.hard_pixels import focal
from semiseg_jax.losses.pixel import mean_where
from semiseg_jax.losses.region import dice_distance


def binary_cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  ignored_as_negative: bool = True,
  axis_name: str | None = None,
) -> jax.Array:
  """Mean over pixels and classes of the global batch; 0 without any.

  ignored_as_negative: pixels without a label count as of none of the classes, as the original has
  it; else they are left out.

  logits: [B,H,W,C]; labels: [B,H,W] int32.
  Source: pytorch-segmentation, `BCEWithLogitsLoss2d`.
  """
  logits, targets, counted = _terms(logits, labels, ignored_as_negative)
  return mean_where(optax.sigmoid_binary_cross_entropy(logits, targets), counted, axis_name)


def binary_focal_loss(
  logits: jax.Array,
  labels: jax.Array,
  gamma: float = 2.0,
  of_mean: bool = True,
  ignored_as_negative: bool = True,
  axis_name: str | None = None,
) -> jax.Array:
  """(1 - exp(-BCE))^gamma BCE of the mean of BCE, as the original has it, or of each entry.

  Else as `binary_cross_entropy`.
  Source: pytorch-segmentation, `BCEWithLogitsFocalLoss2d`.
  """
  logits, targets, counted = _terms(logits, labels, ignored_as_negative)
  loss = optax.sigmoid_binary_cross_entropy(logits, targets)
  if of_mean:
    return focal(mean_where(loss, counted, axis_name), gamma)
  return mean_where(focal(loss, gamma), counted, axis_name)


def binary_dice_loss(
  logits: jax.Array,
  labels: jax.Array,
  smooth: float = 1.0,
  ignored_as_negative: bool = True,
  axis_name: str | None = None,
) -> jax.Array:
  """1 - (2 sum p o + smooth) / (sum p + sum o + smooth), o one-hot, over the global batch.

  Else as `binary_cross_entropy`.
  Source: pytorch-segmentation, `BDiceLoss`.
  """
  logits, targets, counted = _terms(logits, labels, ignored_as_negative)
  probs = jnp.where(counted, jax.nn.sigmoid(logits), 0)
  both, size = psum(((probs * targets).sum(), (probs + targets).sum()), axis_name)
  return dice_distance(both, size, smooth, size > 0)


def _terms(
  logits: jax.Array, labels: jax.Array, ignored_as_negative: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Logits in float32, one-hot targets and which entries count, all [B,H,W,C]."""
  is_label = labels[..., None] == jnp.arange(logits.shape[-1])
  counted = jnp.broadcast_to((labels != IGNORE)[..., None] | ignored_as_negative, is_label.shape)
  return logits.astype(jnp.float32), is_label.astype(jnp.float32), counted
