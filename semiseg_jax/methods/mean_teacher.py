"""An EMA teacher labels crops that the student sees mixed (ReCo, `train_semisup*.py` without ReCo).

Pseudo-labels with CutOut, CutMix (French et al. 2020) or ClassMix (Olsson et al. 2021).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from semiseg_jax import contract
from semiseg_jax.augment.views import MIXINGS, image_keys, labeled_view, mixed_view, ranks
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Aux, Batch, Loss, Params, TrainState, Tree
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.labeled import labeled_losses, make_loss
from semiseg_jax.losses.pixel import confidence_weighted_loss
from semiseg_jax.models.decision import most_likely
from semiseg_jax.models.network import Outputs
from semiseg_jax.values import Interval, NotNegative, Share


class Student(NamedTuple):
  """The student's passes over a batch, the losses that they have, and its statistics after them."""

  labeled: Outputs
  unlabeled: Outputs | None
  losses: dict[str, jax.Array]
  batch_stats: Tree


@dataclasses.dataclass(frozen=True)
class Method(contract.Method):
  """The consistency method of the original's semi-supervised scripts.

  mixing: cutout | cutmix | classmix. strong_threshold: confidence above which a pixel counts for
  its image's weight. scale_range: of the unlabelled crops, after the teacher has seen them.
  ema_decay: the teacher's, after the warm-up min(1 - 1/(step+1), ema_decay). partial: sparse
  labels, which override the teacher's. eight_bit_passes: the original's two round trips through
  8-bit images (they darken some levels by one). scope: mixing partners from the whole batch
  ("global") or the device's own images ("device"). supervised_loss, aux_weight: of the labelled
  pixels, as in methods/supervised.py.
  """

  mixing: Literal[*MIXINGS] = "classmix"
  strong_threshold: Share = 0.97
  scale_range: Interval = (1.0, 1.0)
  ema_decay: Share = 0.99
  partial: bool = False
  eight_bit_passes: bool = True
  scope: Literal["global", "device"] = "global"
  supervised_loss: str = "ce"
  aux_weight: NotNegative = 0.4

  streams = ("labeled", "unlabeled")
  networks = ("student", "teacher")
  scored = "teacher"

  def __post_init__(self):
    make_loss(self.supervised_loss)  # says what is wrong with it

  def check(self, config: Mapping[str, Any]) -> None:
    sparse = config["data"]["partial"]
    if "unlabeled" in self.streams and self.partial != bool(sparse):
      raise ValueError(
        f"config.data.partial={sparse!r} but config.method.partial={self.partial}: sparse labels "
        "need both"
      )

  def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Tree:
    unlabeled = batch["unlabeled"]
    images = unlabeled["image"].astype(jnp.float32)
    labels, confidence, batch_stats = self.pseudo_labels(state, images, unlabeled)
    view = mixed_view(
      images,
      labels,
      confidence,
      unlabeled["position"],
      key,
      mixing=self.mixing,
      scale_range=self.scale_range,
      eight_bit_passes=self.eight_bit_passes,
      axis_name=DATA_AXIS if self.scope == "global" else None,
    )
    return {
      "labeled": labeled_view(batch, key),
      "unlabeled": view,
      "batch_stats": {"teacher": batch_stats},
    }

  def pseudo_labels(
    self, state: TrainState, images: jax.Array, unlabeled: dict[str, jax.Array]
  ) -> tuple[jax.Array, jax.Array, Tree]:
    """The teacher's labels and confidence [B,H,W] of the plain crops.

    The teacher is in train mode: it normalises with the batch's statistics and keeps running
    averages of its own.
    """
    outputs, batch_stats = state.run("teacher", images, train=True)
    logits = state.forward["teacher"].resize(outputs.logits, images.shape[1:3])
    labels, confidence = most_likely(logits)
    if self.partial:
      given = unlabeled["label"].astype(jnp.int32)
      labels = jnp.where(given != IGNORE, given, labels)
      confidence = jnp.where(given != IGNORE, 1.0, confidence)
    return labels, confidence, batch_stats

  def student(self, params: Params, state: TrainState, views: Tree, key: jax.Array) -> Student:
    """Two passes, so two sets of batch statistics, as in the original: labelled, then mixed.

    key: of dropout, which the original's networks don't have.
    """
    network, params = state.forward["student"], params["student"]
    view, batch_stats = views["labeled"], state.networks["student"].batch_stats
    keys = image_keys(key, view["rank"], 6)
    labeled, batch_stats = network(params, batch_stats, view["image"], True, keys)
    loss, logits = (
      make_loss(self.supervised_loss),
      network.resized(labeled, view["label"].shape[1:]),
    )
    when = state.step, state.facts.steps
    losses = labeled_losses(loss, logits, view["label"], *when, self.aux_weight, DATA_AXIS)
    if "unlabeled" not in views:
      return Student(labeled, None, losses, batch_stats)
    before, view = len(view["label"]), views["unlabeled"]
    keys = image_keys(key, ranks([before, len(view["label"])])[1], 6)
    unlabeled, batch_stats = network(params, batch_stats, view["image"], True, keys)
    logits = network.resize(unlabeled.logits, view["label"].shape[1:])
    losses["unsupervised_loss"] = confidence_weighted_loss(
      logits, view["label"], view["confidence"], self.strong_threshold, DATA_AXIS
    )
    return Student(labeled, unlabeled, losses, batch_stats)

  def loss(self, params: Params, state: TrainState, views: Tree, key: jax.Array) -> Loss:
    student = self.student(params, state, views, key)
    batch_stats = {**views.get("batch_stats", {}), "student": student.batch_stats}
    return sum(student.losses.values()), Aux(student.losses, batch_stats)

  def after(self, state: TrainState, aux: Aux) -> TrainState:
    """The first update copies the student."""
    decay = jnp.minimum(1 - 1 / (state.step + 1), self.ema_decay)
    return state.averaged("teacher", "student", decay)
