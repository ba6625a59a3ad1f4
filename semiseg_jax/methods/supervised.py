"""Training on the labelled images alone (ReCo, `train_sup.py` and `train_sup_partial.py`)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from semiseg_jax import contract
from semiseg_jax.augment.geometry import draw_flip, flip
from semiseg_jax.augment.photometric import (
  color_jitter,
  draw_blur,
  draw_color_jitter,
  gaussian_blur,
)
from semiseg_jax.collectives import DATA_AXIS, device_count, device_index
from semiseg_jax.contract import Aux, TrainState, Tree
from semiseg_jax.losses.pixel import supervised_loss
from semiseg_jax.models.networks import Outputs
from semiseg_jax.models.resize import resize_bilinear


class Student(NamedTuple):
  """The student's passes over a batch and what its base method makes of them."""

  loss: jax.Array
  labeled: Outputs
  unlabeled: Outputs | None
  batch_stats: Tree
  metrics: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Method(contract.Method):
  """Cross-entropy over the labelled pixels of augmented crops; no hyper-parameters of its own."""

  def targets(self, state: TrainState, batch: dict, key: jax.Array) -> dict:
    return {"labeled": labeled_view(batch, key)}

  def student(self, params: Tree, state: TrainState, views: dict) -> Student:
    """One forward pass and its loss."""
    labeled = views["labeled"]
    outputs, batch_stats = state.forward(params, state.batch_stats, labeled["image"], train=True)
    loss = supervised_loss(
      at_label_size(outputs.logits, labeled["label"]), labeled["label"], DATA_AXIS
    )
    return Student(loss, outputs, None, batch_stats, {"supervised_loss": loss})

  def loss(
    self, params: Tree, state: TrainState, views: dict, key: jax.Array
  ) -> tuple[jax.Array, Aux]:
    student = self.student(params, state, views)
    return student.loss, Aux(student.metrics, student.batch_stats)


def labeled_view(batch: dict, key: jax.Array) -> dict[str, jax.Array]:
  """All labelled images, those of another domain ("domain") behind the others.

  {"image", "label", "rank"}: colour jitter, blur and flip; the crop came from the input.
  rank int32 [B] is the image's place among all devices' labelled images.
  """
  parts = [augment_labeled(batch["labeled"], key, 0)]
  if "domain" in batch:
    parts.append(augment_labeled(batch["domain"], key, 5))
  view = {name: jnp.concatenate([part[name] for part in parts]) for name in parts[0]}
  return {**view, "rank": jnp.concatenate(ranks([len(part["label"]) for part in parts]))}


def augment_labeled(batch: dict[str, jax.Array], key: jax.Array, use: int) -> dict[str, jax.Array]:
  """One stream's images [B,H,W,3] and labels [B,H,W]; `use` as in `image_keys`."""
  images, labels = batch["image"].astype(jnp.float32), batch["label"].astype(jnp.int32)
  images, labels = strong_view(images, (labels,), image_keys(key, batch["position"], use))
  return {"image": images, "label": labels[0]}


def ranks(sizes: list[int]) -> list[jax.Array]:
  """Each image's place in the global batch, streams one after the other, on any device count."""
  index, count = device_index(DATA_AXIS), device_count(DATA_AXIS)
  starts = [count * sum(sizes[:i]) for i in range(len(sizes))]
  return [
    start + index * size + jnp.arange(size) for start, size in zip(starts, sizes, strict=True)
  ]


def strong_view(
  images: jax.Array, maps: tuple[jax.Array, ...], keys: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
  """Colour jitter, blur, and a flip of the image levels [B,H,W,3] and of all maps [B,H,W]."""
  jitter_keys, blur_keys, flip_keys = jnp.moveaxis(
    jax.vmap(lambda k: jax.random.split(k, 3))(keys), 1, 0
  )
  images = color_jitter(images, draw_color_jitter(jitter_keys))
  images = gaussian_blur(images, draw_blur(blur_keys))
  flipped = draw_flip(flip_keys)
  return flip(images, flipped), tuple(flip(m, flipped) for m in maps)


def image_keys(key: jax.Array, position: jax.Array, use: int) -> jax.Array:
  """One key per image [B], from its position in the stream; `use` separates the draws."""
  key = jax.random.fold_in(key, use)
  return jax.vmap(lambda p: jax.random.fold_in(key, p))(position)


def at_label_size(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Logits [B,h,w,K] resized to the labels' [B,H,W], bilinear with aligned corners."""
  return resize_bilinear(logits, labels.shape[1:3], align_corners=True)
