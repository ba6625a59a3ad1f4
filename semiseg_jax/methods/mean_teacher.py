"""An EMA teacher labels crops that the student sees mixed (ReCo, `train_semisup*.py` without ReCo).

Pseudo-labels with CutOut, CutMix (French et al. 2020) or ClassMix (Olsson et al. 2021).
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from semiseg_jax import contract
from semiseg_jax.augment import mix
from semiseg_jax.augment.geometry import draw_scale_crop, scale_crop
from semiseg_jax.augment.levels import eight_bit_confidence, eight_bit_pass
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Aux, TrainState, Tree
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.pixel import confidence_weighted_loss
from semiseg_jax.methods import supervised
from semiseg_jax.methods.supervised import Student, at_label_size, image_keys, strong_view

MIXINGS = ("cutout", "cutmix", "classmix")


@dataclasses.dataclass(frozen=True)
class Method(contract.Method):
  """The consistency method of the original's semi-supervised scripts.

  mixing: cutout | cutmix | classmix. strong_threshold: confidence above which a pixel counts for
  its image's weight. scale_range: of the unlabelled crops, after the teacher has seen them.
  ema_decay: the teacher's, after the warm-up min(1 - 1/(step+1), ema_decay). partial: sparse
  labels, which override the teacher's. eight_bit_passes: the original's two round trips through
  8-bit images (they darken some levels by one). scope: mixing partners from the whole batch
  ("global") or the device's own images ("device").
  """

  mixing: str = "classmix"
  strong_threshold: float = 0.97
  scale_range: Sequence[float] = (1.0, 1.0)
  ema_decay: float = 0.99
  partial: bool = False
  eight_bit_passes: bool = True
  scope: str = "global"

  uses_teacher = True
  uses_unlabeled = True

  def __post_init__(self):
    require("mixing", self.mixing, MIXINGS)
    require("scope", self.scope, ("global", "device"))

  def teacher_decay(self, state: TrainState) -> jax.Array:
    """0 at the first update, which copies the student."""
    return jnp.minimum(1 - 1 / (state.step + 1), self.ema_decay)

  def targets(self, state: TrainState, batch: dict, key: jax.Array) -> dict:
    unlabeled = batch["unlabeled"]
    images = unlabeled["image"].astype(jnp.float32)
    pseudo_label, confidence, teacher_batch_stats = self.pseudo_labels(state, images, unlabeled)
    view = self.mixed_view(images, pseudo_label, confidence, unlabeled["position"], key)
    return {
      "labeled": supervised.labeled_view(batch, key),
      "unlabeled": view,
      "teacher_batch_stats": teacher_batch_stats,
    }

  def pseudo_labels(
    self, state: TrainState, images: jax.Array, unlabeled: dict[str, jax.Array]
  ) -> tuple[jax.Array, jax.Array, Tree]:
    """The teacher's labels and confidence [B,H,W] of the plain crops.

    The teacher is in train mode: it normalises with the batch's statistics and keeps running
    averages of its own.
    """
    outputs, batch_stats = state.forward(*state.teacher, images, train=True)
    probs = jax.nn.softmax(at_label_size(outputs.logits, images), axis=-1)
    pseudo_label, confidence = probs.argmax(-1).astype(jnp.int32), probs.max(-1)
    if self.partial:
      given = unlabeled["label"].astype(jnp.int32)
      pseudo_label = jnp.where(given != IGNORE, given, pseudo_label)
      confidence = jnp.where(given != IGNORE, 1.0, confidence)
    return pseudo_label, confidence, batch_stats

  def mixed_view(
    self,
    images: jax.Array,
    pseudo_label: jax.Array,
    confidence: jax.Array,
    position: jax.Array,
    key: jax.Array,
  ) -> dict[str, jax.Array]:
    """Rescaled, mixed, then jittered, blurred and flipped: what the student is to learn from."""
    images, confidence = self.through_eight_bits(images, confidence)
    if tuple(self.scale_range) != (1.0, 1.0):
      size = images.shape[1:3]
      draws = draw_scale_crop(image_keys(key, position, 1), size, self.scale_range, size)
      images, pseudo_label, confidence = scale_crop(
        images, pseudo_label, confidence, draws, size, self.scale_range
      )
    images, confidence = self.through_eight_bits(images, confidence)
    images, pseudo_label, confidence = self.mix(
      images, pseudo_label, confidence, image_keys(key, position, 2)
    )
    images, (pseudo_label, confidence) = strong_view(
      images, (pseudo_label, confidence), image_keys(key, position, 3)
    )
    return {"image": images, "label": pseudo_label, "confidence": confidence}

  def through_eight_bits(
    self, images: jax.Array, confidence: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    if not self.eight_bit_passes:
      return images, confidence
    return eight_bit_pass(images), eight_bit_confidence(confidence)

  def mix(
    self, images: jax.Array, labels: jax.Array, confidence: jax.Array, keys: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    if self.mixing == "classmix":
      mask = mix.class_mask(labels, mix.draw_classes(keys, labels))
    else:
      mask = mix.box_mask(mix.draw_boxes(keys, labels.shape[1:]), labels.shape[1:])
    if self.mixing == "cutout":
      return mix.cutout(images, labels, confidence, mask)
    axis_name = DATA_AXIS if self.scope == "global" else None
    return mix.mix(images, labels, confidence, mask, axis_name)

  def student(self, params: Tree, state: TrainState, views: dict) -> Student:
    """Two passes, so two sets of batch statistics, as in the original: labelled, then mixed."""
    base = supervised.Method().student(params, state, views)
    view = views["unlabeled"]
    outputs, batch_stats = state.forward(params, base.batch_stats, view["image"], train=True)
    unsupervised = confidence_weighted_loss(
      at_label_size(outputs.logits, view["label"]),
      view["label"],
      view["confidence"],
      self.strong_threshold,
      DATA_AXIS,
    )
    metrics = {**base.metrics, "unsupervised_loss": unsupervised}
    return Student(base.loss + unsupervised, base.labeled, outputs, batch_stats, metrics)

  def loss(
    self, params: Tree, state: TrainState, views: dict, key: jax.Array
  ) -> tuple[jax.Array, Aux]:
    student = self.student(params, state, views)
    return student.loss, Aux(student.metrics, student.batch_stats, views["teacher_batch_stats"])


def require(name: str, value: object, allowed: tuple) -> None:
  """ValueError unless the hyper-parameter has one of the allowed values."""
  if value not in allowed:
    raise ValueError(f"config.method.{name}={value!r}: choose from {', '.join(map(repr, allowed))}")
