"""Cross-set contrast with class-balanced thresholds (C3-SemiSeg, Zhou et al., ICCV 2021).

A mean teacher labels the plain views of unlabelled images. Their strong views and the labelled
images are shuffled into one batch and mixed in pairs by boxes; what the student says of it is
un-mixed before any loss: cross-entropy with the labels, with the teacher's soft labels above their
class's threshold, and contrast between pixels of both sets.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax import contract
from semiseg_jax.augment.c3 import box_mask, draw_boxes
from semiseg_jax.augment.views import View, image_keys, ranks
from semiseg_jax.collectives import (
  DATA_AXIS,
  all_gather,
  cond,
  device_count,
  device_index,
  pmax,
  value_and_grad,
)
from semiseg_jax.contract import Aux, Batch, Facts, Params, TrainState, Tree
from semiseg_jax.fields import Steps, require
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses import class_thresholds
from semiseg_jax.losses.pixel import consistency_loss, kl_to_uniform, ramp_up
from semiseg_jax.losses.pixel_contrast import pixel_contrast
from semiseg_jax.losses.table import LOSSES
from semiseg_jax.models.decision import most_likely
from semiseg_jax.models.network import Network, Variables
from semiseg_jax.models.resize import resize_bilinear, resize_nearest

_METRICS = ("supervised_loss", "consistency_loss", "unmasked_consistency", "contrast_loss")
_FIRST_THRESHOLD = 0.9


@dataclasses.dataclass(frozen=True)
class Method(contract.Method):
  """The original's method; defaults are those of its published script.

  supervised_loss: of the labelled images, one of losses.table. unlabeled_start: the step that first
  learns from unlabelled images, None for never. consistency_weight, consistency_ramp: of the
  teacher's labels, and the steps over which the weight rises. kld_weight: of a term that keeps the
  student from being sure. ema_decay: the teacher's from a warm-up on, None for a copy of the
  student at every step. mixing: cross_set | within (labelled images with labelled ones, unlabelled
  with unlabelled) | None.

  contrast: cross_set | cross_model (unlabelled pixels, student and teacher) | labeled | None.
  contrast_start, contrast_weight, contrast_ramp: as for consistency. temperature; pixels: of each
  class and image; mining: half of them hard ones; skip_first_class: no pixels of class 0;
  embedding_dim, head (mlp | aspp): of the projection.

  thresholds: leave out what the teacher is less sure of than its class's threshold. end_percent,
  gamma: the share of a class's pixels that its confidences' percentile keeps, times threshold^gamma;
  threshold_decay: of the moving value. true_labels_only: leave out where the teacher is wrong, for
  runs whose unlabelled images have labels. gpus: on which the original ran, each of which moved its
  ramps and the teacher's warm-up by one a step. scope: mixing and contrast over the whole batch
  ("global") or the device's own images ("device").
  """

  supervised_loss: str = "cross_entropy"
  unlabeled_start: Steps | None = 2250
  consistency_weight: float = 50.0
  consistency_ramp: Steps = 4000
  kld_weight: float = 0.0
  ema_decay: float | None = 0.99
  mixing: str | None = "cross_set"
  contrast: str | None = "cross_set"
  contrast_start: Steps = 0
  contrast_weight: float = 0.1
  contrast_ramp: Steps = 250
  temperature: float = 0.15
  pixels: int = 20
  mining: bool = True
  skip_first_class: bool = True
  embedding_dim: int = 256
  head: str = "mlp"
  thresholds: bool = True
  end_percent: float = 0.8
  gamma: float = 0.0
  threshold_decay: float = 0.9
  true_labels_only: bool = False
  gpus: int = 4
  scope: str = "global"

  def __post_init__(self):
    require("config.method.supervised_loss", self.supervised_loss, LOSSES)
    require("config.method.mixing", self.mixing, ("cross_set", "within", None))
    require("config.method.contrast", self.contrast, ("cross_set", "cross_model", "labeled", None))
    require("config.method.head", self.head, ("mlp", "aspp"))
    require("config.method.scope", self.scope, ("global", "device"))

  @property
  def streams(self) -> tuple[str, ...]:
    return ("labeled",) if self.unlabeled_start is None else ("labeled", "unlabeled")

  @property
  def networks(self) -> tuple[str, ...]:
    return ("student",) if self.unlabeled_start is None else ("student", "teacher")

  def heads(self) -> dict[str, int]:
    return {} if self.contrast is None else {f"{self.head}_projection": self.embedding_dim}

  def check(self, config: Mapping[str, Any]) -> None:
    if self.unlabeled_start is None:
      return
    data = config["data"]
    if data["unlabeled_transform"]["name"] != "c3_unlabeled":
      raise ValueError(
        f"config.data.unlabeled_transform.name={data['unlabeled_transform']['name']!r} makes one "
        "view of an image: C3 learns from two, so give 'c3_unlabeled'"
      )
    if self.mixing and data["labeled_batch"] != data["unlabeled_batch"]:
      raise ValueError(
        f"config.data.labeled_batch={data['labeled_batch']} but config.data.unlabeled_batch="
        f"{data['unlabeled_batch']}: images are mixed in pairs, so give both the same size, or "
        "config.method.mixing=None"
      )

  def start(
    self, student: Variables, make: Callable[[int], Variables], facts: Facts
  ) -> tuple[dict[str, Variables], jax.Array]:
    """method_state: the thresholds, float32 [C]."""
    return dict.fromkeys(self.networks, student), jnp.full(facts.num_classes, _FIRST_THRESHOLD)

  def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Tree:
    """The batch as it came: what the teacher says is wanted from `unlabeled_start` on."""
    return batch

  def gradient(
    self, params: Params, state: TrainState, views: Tree, key: jax.Array
  ) -> tuple[jax.Array, Aux, Params]:
    """Of the labelled images alone, or of both sets."""

    def alone(params: Params) -> tuple[jax.Array, Aux, Params]:
      return value_and_grad(self.labeled_loss, params, state, views["labeled"], key)

    def both(params: Params) -> tuple[jax.Array, Aux, Params]:
      return value_and_grad(self.loss, params, state, self.dealt(state, views, key), key)

    if self.unlabeled_start is None:
      loss, aux, grads = alone(params)
    else:
      loss, aux, grads = cond(state.step >= self.unlabeled_start, both, alone, params)
    # every device has the same thresholds: this tells the type system
    return loss, aux._replace(method_state=pmax(aux.method_state, DATA_AXIS)), grads

  def labeled_loss(
    self, params: Params, state: TrainState, view: View, key: jax.Array
  ) -> tuple[jax.Array, Aux]:
    """Cross-entropy of the labelled images, and contrast within them."""
    student, labels = state.forward["student"], view["label"].astype(jnp.int32)
    outputs, stats = student(
      params["student"],
      state.networks["student"].batch_stats,
      view["image"].astype(jnp.float32),
      train=True,
      keys=image_keys(key, view["position"], 0),
    )
    logits = student.resize(outputs.logits, labels.shape[1:])
    losses = {"supervised_loss": (1.0, self.supervised(logits, labels, state))}
    if self.contrast:
      embedding, place = outputs.embedding, ranks([len(labels)])[0]
      losses |= self.contrasted(embedding, None, logits, labels, place, state, key)
    return self.total(losses, stats, state.method_state)

  def dealt(self, state: TrainState, batch: Batch, key: jax.Array) -> View:
    """What the student learns from: this device's share of the shuffled images of both sets.

    Places in the batch count labelled images first. Instead of bringing the student's outputs back
    to where the images came from, labels and the teacher's outputs follow the images.
    """
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    images = unlabeled["image"].astype(jnp.float32)
    teacher, outputs = state.forward["teacher"], state.run("teacher", images, train=False)[0]
    place, pair = self.places(len(labeled["label"]), len(images), key)
    gathered = lambda x: all_gather(x, self.axis_name)
    of_both = lambda a, b: jnp.concatenate([gathered(a), gathered(b)])[place]
    count = len(labeled["label"]) * device_count(self.axis_name)
    of_unlabeled = lambda x: gathered(x)[place - count]  # labelled images get any, and don't use it
    label = of_both(labeled["label"], unlabeled["label"]).astype(jnp.int32)
    logits = teacher.resize(of_unlabeled(outputs.logits), label.shape[1:])
    guess, confidence = most_likely(logits)
    is_unlabeled = jnp.broadcast_to((place >= count)[:, None, None], guess.shape)
    thresholds, known = state.method_state, is_unlabeled
    if self.thresholds:
      guesses = jnp.where(is_unlabeled, guess, IGNORE)
      thresholds = class_thresholds.update(
        thresholds,
        guesses,
        confidence,
        end_percent=self.end_percent,
        gamma=self.gamma,
        decay=self.threshold_decay,
        axis_name=DATA_AXIS,
      )
      known &= class_thresholds.passes(thresholds, guess, confidence)
    if self.true_labels_only:
      known &= guess == label
    view = {
      "image": of_both(labeled["image"], unlabeled["strong"]).astype(jnp.float32),
      "label": jnp.where(is_unlabeled, IGNORE, label),
      "guess": jnp.where(known, guess, IGNORE),
      "soft": jax.nn.softmax(logits),
      "is_unlabeled": is_unlabeled,
      "known": known,
      "place": place,
      "pair": pair,
      "thresholds": thresholds,
    }
    if outputs.embedding is not None:
      view["embedding"] = of_unlabeled(outputs.embedding)
    return view

  @property
  def axis_name(self) -> str | None:
    """Of the devices that mix and contrast their images together."""
    return DATA_AXIS if self.scope == "global" else None

  def places(self, labeled: int, unlabeled: int, key: jax.Array) -> jax.Array:
    """Where in the batch this device's images come from: int32 [labeled + unlabeled].

    The first half of them is mixed with the second. labeled, unlabeled: images of each device.
    """
    index, count = device_index(self.axis_name), device_count(self.axis_name)
    if self.mixing is None:
      own = lambda size: index * size + jnp.arange(size)
      return jnp.concatenate([own(labeled), count * labeled + own(unlabeled)])
    total, half = count * (labeled + unlabeled), (labeled + unlabeled) // 2
    if self.mixing == "cross_set":
      order = draw_order(jax.random.fold_in(key, 1), total)
    else:  # the first half of each set, then the second of each
      order = jnp.arange(total).reshape(2, 2, -1).swapaxes(0, 1)
    return lax.dynamic_slice_in_dim(order.reshape(2, -1), index * half, half, axis=1).reshape(-1)

  def loss(
    self, params: Params, state: TrainState, views: View, key: jax.Array
  ) -> tuple[jax.Array, Aux]:
    """Of both sets, from what `dealt` gives."""
    student, params = state.forward["student"], params["student"]
    size, stats = views["label"].shape[1:], state.networks["student"].batch_stats
    keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(views["place"])
    images, mask = views["image"], None
    if self.mixing:
      mask = box_mask(draw_boxes(keys[: len(keys) // 2], size), size)
      images = swapped(images, mask)
    features, stats = student.encode(params, stats, images, train=True, keys=keys)
    outputs, stats = student.decode(params, stats, features, size, train=True, keys=keys)
    logits = swapped(student.resize(outputs.logits, size), mask)
    losses = {
      "supervised_loss": (1.0, self.supervised(logits, views["label"], state)),
      **self.consistency(logits, views, state),
    }
    if self.contrast:
      embedding, stats = self.unmixed_embedding(student, params, stats, features, mask, keys)
      losses |= self.contrasts(embedding, logits, views, state, key)
    return self.total(losses, stats, views["thresholds"])

  def consistency(
    self, logits: jax.Array, views: View, state: TrainState
  ) -> dict[str, tuple[jax.Array, jax.Array]]:
    """{metric: (weight, loss)} of what the teacher says of unlabelled images."""
    ramp = self.ramp(state, self.unlabeled_start, self.consistency_ramp)
    both = lambda mask: consistency_loss(logits, views["soft"], mask, DATA_AXIS)
    losses = {"consistency_loss": (self.consistency_weight * ramp, both(views["known"]))}
    if self.thresholds:
      losses["unmasked_consistency"] = (0.0, both(views["is_unlabeled"]))
    if self.kld_weight:
      losses["kld_loss"] = (self.kld_weight * ramp, kld_loss(logits, views["is_unlabeled"], DATA_AXIS))
    return losses
