"""Cross-set contrast with class-balanced thresholds (C3-SemiSeg, Zhou et al., ICCV 2021).

A mean teacher labels the plain views of unlabelled images. Their strong views and the labelled
images are shuffled into one batch and mixed in pairs by boxes; what the student says of it is
un-mixed before any loss: cross-entropy with the labels, with the teacher's soft labels above their
class's threshold, and contrast between pixels of both sets.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from semiseg_jax import contract
from semiseg_jax.augment.mix import box_mask, draw_aspect_boxes
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
from semiseg_jax.contract import Aux, Batch, Facts, Loss, Params, TrainState, Tree
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.class_thresholds import is_confident, update_thresholds
from semiseg_jax.losses.labeled import make_loss
from semiseg_jax.losses.pixel_contrast import pixel_contrast_loss
from semiseg_jax.losses.soft import consistency_loss, kld_loss
from semiseg_jax.models.decision import most_likely
from semiseg_jax.models.network import Network, Variables
from semiseg_jax.models.resize import resize_bilinear, resize_nearest
from semiseg_jax.schedules import ramp_up
from semiseg_jax.values import Channels, Count, NotNegative, Positive, Share, StepsFrom0

_FIRST_THRESHOLD = 0.9

Weighted = dict[str, tuple[jax.typing.ArrayLike, jax.Array]]  # (weight, loss) of each metric


@dataclasses.dataclass(frozen=True)
class Method(contract.Method):
  """The original's method; defaults are those of its published script.

  supervised_loss: of the labelled images, as in methods/supervised.py. unlabeled_start: the first
  step that learns from unlabelled images, None for never. consistency_weight, consistency_ramp: of
  the loss with the teacher's labels, and the steps over which its weight rises. kld_weight: of a
  term that keeps the student from being sure. ema_decay: the teacher's after a warm-up; None copies
  the student at every step. mixing: cross_set | within (each set in itself) | None.

  contrast: cross_set | cross_model (of unlabelled pixels) | labeled | None. contrast_start,
  contrast_weight, contrast_ramp: as for consistency. temperature; pixels: of each class and image;
  mining: half of them hard ones; every_class: of class 0 too; embedding_dim and head (mlp | aspp):
  of the projection.

  thresholds: learn only where the teacher is as sure as its class's threshold. end_percent, gamma:
  the share of a class's pixels above the next threshold, times threshold^gamma; threshold_decay: of
  its moving average. true_labels_only: learn only where the teacher is right, for runs whose
  unlabelled images have labels. gpus: that the original ran on, and by which its ramps and its
  teacher's warm-up count on at a step. average_statistics: the teacher's BatchNorms average the
  student's statistics, where the original's keep those of `unlabeled_start`, which fits frozen ones
  alone. scope: mixing and contrast over the whole batch ("global")
  or the device's own images ("device").
  """

  supervised_loss: str = "masked_ce"
  unlabeled_start: StepsFrom0 | None = 2250
  consistency_weight: NotNegative = 50.0
  consistency_ramp: StepsFrom0 = 4000
  kld_weight: NotNegative = 0.0
  ema_decay: Share | None = 0.99
  mixing: Literal["cross_set", "within"] | None = "cross_set"
  contrast: Literal["cross_set", "cross_model", "labeled"] | None = "cross_set"
  contrast_start: StepsFrom0 = 0
  contrast_weight: NotNegative = 0.1
  contrast_ramp: StepsFrom0 = 250
  temperature: Positive = 0.15
  pixels: Count = 20
  mining: bool = True
  every_class: bool = False
  embedding_dim: Channels = 256
  head: Literal["mlp", "aspp"] = "mlp"
  thresholds: bool = True
  end_percent: Share = 0.8
  gamma: NotNegative = 0.0
  threshold_decay: Share = 0.9
  true_labels_only: bool = False
  gpus: Count = 4
  average_statistics: bool = False
  scope: Literal["global", "device"] = "global"

  def __post_init__(self):
    make_loss(self.supervised_loss)  # says what is wrong with it

  @property
  def streams(self) -> tuple[str, ...]:
    return ("labeled",) if self.unlabeled_start is None else ("labeled", "unlabeled")

  @property
  def networks(self) -> tuple[str, ...]:
    return ("student",) if self.unlabeled_start is None else ("student", "teacher")

  @property
  def axis_name(self) -> str | None:
    """Of the devices that mix and contrast their images together."""
    return DATA_AXIS if self.scope == "global" else None

  def heads(self) -> dict[str, int]:
    return {} if self.contrast is None else {f"projection_{self.head}": self.embedding_dim}

  def check(self, config: Mapping[str, Any]) -> None:
    if self.unlabeled_start is None:
      return
    contract.refuse_domain(config, "C3")
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
    """method_state: the classes' thresholds, float32 [C]."""
    return dict.fromkeys(self.networks, student), jnp.full(facts.num_classes, _FIRST_THRESHOLD)

  def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Tree:
    """The batch as it came: the teacher is not asked before `unlabeled_start`."""
    return batch

  def gradient(
    self, params: Params, state: TrainState, views: Tree, key: jax.Array
  ) -> tuple[jax.Array, Aux, Params]:
    """Of the labelled images alone, or of both sets."""

    def of_labeled(params: Params) -> tuple[jax.Array, Aux, Params]:
      return value_and_grad(self.labeled_loss, params, state, views["labeled"], key)

    def of_both(params: Params) -> tuple[jax.Array, Aux, Params]:
      return value_and_grad(self.loss, params, state, self.dealt(state, views, key), key)

    if self.unlabeled_start is None:
      loss, aux, grads = of_labeled(params)
    else:
      loss, aux, grads = cond(state.step >= self.unlabeled_start, of_both, of_labeled, params)
    # the thresholds are equal on all devices, which a choice between branches hides
    return loss, aux._replace(method_state=pmax(aux.method_state, DATA_AXIS)), grads

  def labeled_loss(self, params: Params, state: TrainState, views: View, key: jax.Array) -> Loss:
    """Before `unlabeled_start`: cross-entropy, and contrast within the labelled images."""
    student, params = state.forward["student"], params["student"]
    images, labels = views["image"].astype(jnp.float32), views["label"].astype(jnp.int32)
    keys, stats = image_keys(key, views["position"], 0), state.networks["student"].batch_stats
    logits, features, stats = said(student, params, stats, images, None, keys)
    losses = {"supervised_loss": (1.0, self.supervised(logits, labels, state))}
    if self.contrast:
      embedding, stats = projected(student, params, stats, features, True, keys)
      place = ranks([len(labels)])[0]
      loss = self.pixel_contrast(embedding, None, logits, labels, place, key)
      losses["contrast_loss"] = (self.contrast_weight * self.contrast_rise(state), loss)
    return self.summed(losses, stats, state.method_state)

  def dealt(self, state: TrainState, batch: Batch, key: jax.Array) -> View:
    """This device's share of the shuffled images of both sets, and what is to be learnt of each.

    The student's outputs are not brought back to where its images came from: labels and what the
    teacher says, at its stride, go where the images go. What travels are the images as they came
    and, of an unlabelled one, the teacher's logits and embedding.
    """
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    own, network = unlabeled["image"].astype(jnp.float32), state.forward["teacher"]
    params, stats = state.networks["teacher"]
    features, _ = network.encode(params, stats, own, train=False)
    outputs, _ = network.decode(params, stats, features, own.shape[1:3], train=False)
    place = self.places(len(labeled["label"]), len(own), key)
    count = len(labeled["label"]) * device_count(self.axis_name)  # labelled images come first
    gathered = lambda x: all_gather(x, self.axis_name)
    of_both = lambda a, b: jnp.concatenate([gathered(a), gathered(b)])[place]
    # a labelled image gets some row, which nobody reads
    of_unlabeled = lambda x: gathered(x)[place - count]

    label = of_both(labeled["label"], unlabeled["label"]).astype(jnp.int32)
    logits = network.resize(of_unlabeled(outputs.logits), label.shape[1:])
    guess, confidence = most_likely(logits)
    is_unlabeled = jnp.broadcast_to((place >= count)[:, None, None], guess.shape)
    thresholds, known = state.method_state, is_unlabeled
    if self.thresholds:
      thresholds = update_thresholds(
        thresholds, jnp.where(is_unlabeled, guess, len(thresholds)), confidence,
        end_percent=self.end_percent, gamma=self.gamma, ema=self.threshold_decay,
        axis_name=DATA_AXIS,
      )  # fmt: skip
      known &= is_confident(guess, confidence, thresholds)
    if self.true_labels_only:
      known &= guess == label
    view = {
      "image": of_both(labeled["image"], unlabeled["strong"]).astype(jnp.float32),
      "label": jnp.where(is_unlabeled, IGNORE, label),
      "guess": jnp.where(known, guess, IGNORE),
      "teacher_logits": logits,
      "is_unlabeled": is_unlabeled,
      "place": place,
      "thresholds": thresholds,
    }
    if self.contrast in ("cross_set", "cross_model"):
      embedding, _ = projected(network, params, stats, features, False, None)
      view["embedding"] = of_unlabeled(embedding)
    return view

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
      key = key if self.scope == "global" else jax.random.fold_in(key, device_index(DATA_AXIS))
      order = draw_order(jax.random.fold_in(key, 1), total)
    else:  # the first half of each set, then the second of each
      order = jnp.arange(total).reshape(2, 2, -1).swapaxes(0, 1)
    return lax.dynamic_slice_in_dim(order.reshape(2, -1), index * half, half, axis=1).reshape(-1)

  def loss(self, params: Params, state: TrainState, views: View, key: jax.Array) -> Loss:
    """Of both sets, from what `dealt` gives."""
    student, params = state.forward["student"], params["student"]
    stats, place, labels = state.networks["student"].batch_stats, views["place"], views["label"]
    mask, keys, size = None, image_keys(key, place, 2), labels.shape[1:]
    if self.mixing:
      boxes = draw_aspect_boxes(image_keys(key, place[: len(place) // 2], 3), size)
      mask = box_mask(boxes, size)
    logits, features, stats = said(student, params, stats, views["image"], mask, keys)
    losses = {"supervised_loss": (1.0, self.supervised(logits, labels, state))}
    losses |= self.consistency(logits, views, state)
    if self.contrast:
      embedding, stats = projected(student, params, stats, features, True, keys)
      other, pixels = self.contrast_sides(embedding, views)
      loss = self.pixel_contrast(embedding, other, logits, pixels, place, key)
      losses["contrast_loss"] = (self.contrast_weight * self.contrast_rise(state), loss)
    return self.summed(losses, stats, views["thresholds"])

  def consistency(self, logits: jax.Array, views: View, state: TrainState) -> Weighted:
    """What the student learns from the teacher's labels."""
    rise = self.consistency_rise(state)
    at = lambda mask: consistency_loss(logits, views["teacher_logits"], mask, DATA_AXIS)
    known = views["guess"] != IGNORE
    losses = {"consistency_loss": (self.consistency_weight * rise, at(known))}
    if self.thresholds:  # for the log: what it would be without them
      losses["unmasked_consistency_loss"] = (0.0, lax.stop_gradient(at(views["is_unlabeled"])))
    if self.kld_weight:
      loss = kld_loss(logits, views["is_unlabeled"], DATA_AXIS)
      losses["kld_loss"] = (self.kld_weight * rise, loss)
    return losses

  def contrast_sides(self, embedding: jax.Array, views: View) -> tuple[jax.Array | None, jax.Array]:
    """What the student's pixels are compared with, None for one another, and their labels."""
    is_unlabeled = views["is_unlabeled"]
    if self.contrast == "labeled":
      return None, views["label"]
    if self.contrast == "cross_model":
      return views["embedding"], views["guess"]
    of_teacher = is_unlabeled[:, :1, :1, None]  # a labelled image is compared with itself
    other = jnp.where(of_teacher, views["embedding"], embedding)
    return other, jnp.where(is_unlabeled, views["guess"], views["label"])

  def pixel_contrast(
    self,
    embedding: jax.Array,
    other: jax.Array | None,
    logits: jax.Array,
    labels: jax.Array,
    place: jax.Array,
    key: jax.Array,
  ) -> jax.Array:
    """See `pixel_contrast_loss`; logits [B,H,W,C] and labels [B,H,W] of the images' own size."""
    size, guess = embedding.shape[1:3], None
    if self.mining and self.contrast == "cross_model":
      guess = resize_nearest(logits.argmax(axis=-1), size)
    elif self.mining:
      guess = resize_bilinear(logits, size, align_corners=False).argmax(axis=-1)
    return pixel_contrast_loss(
      embedding,
      resize_nearest(labels, size),
      guess,
      other,
      num_classes=logits.shape[-1],
      num_pixels=self.pixels,
      temperature=self.temperature,
      key=jax.random.fold_in(key, 4),
      every_class=self.every_class,
      image_rank=place,
      axis_name=DATA_AXIS,
      scope=self.scope,
    )

  def consistency_rise(self, state: TrainState) -> jax.Array:
    """Of the consistency's weight, from `unlabeled_start` on."""
    return ramp_up(state.step - self.unlabeled_start, self.consistency_ramp)

  def contrast_rise(self, state: TrainState) -> jax.Array:
    """Of the contrast's weight, 0 before `contrast_start`."""
    begun = state.step - self.contrast_start
    # the original counts on by `gpus` before it looks, and from 1
    rise = ramp_up(begun + 1 - 1 / self.gpus, self.contrast_ramp)
    return jnp.where(begun >= 0, rise, 0)

  def supervised(self, logits: jax.Array, labels: jax.Array, state: TrainState) -> jax.Array:
    loss = make_loss(self.supervised_loss)
    return loss(logits, labels, state.step, state.facts.steps, DATA_AXIS)

  def summed(self, losses: Weighted, stats: Tree, thresholds: jax.Array) -> Loss:
    """The weighted sum; metrics are those of both phases, NaN for what this one does not have."""
    metrics = {name: loss for name, (_, loss) in losses.items()}
    if self.unlabeled_start is not None:
      names = ["consistency_loss", *(["kld_loss"] if self.kld_weight else [])]
      names += ["unmasked_consistency_loss"] if self.thresholds else []
      metrics = dict.fromkeys(names, jnp.full((), jnp.nan)) | metrics
      metrics |= {"thresholds": thresholds} if self.thresholds else {}
    total = sum(weight * loss for weight, loss in losses.values())
    return total, Aux(metrics, {"student": stats}, thresholds)

  def after(self, state: TrainState, aux: Aux) -> TrainState:
    """The teacher that the next step asks: as it was before `unlabeled_start`, then the student,
    then a moving average of its parameters."""
    if self.unlabeled_start is None:
      return state
    decay = self.teacher_decay(state.step + 1)
    statistics = decay if self.average_statistics else jnp.where(decay == 0, 0, 1)
    return state.averaged("teacher", "student", decay, statistics)

  def teacher_decay(self, step: jax.Array) -> jax.Array:
    """Of the teacher's parameters before a step: 1 leaves it alone, 0 copies the student."""
    if self.ema_decay is None:
      return jnp.zeros(())
    begun = step - self.unlabeled_start
    decay = jnp.minimum(1 - 1 / (self.gpus * (begun + 1) + 1), self.ema_decay)
    return jnp.where(begun > 0, decay, jnp.where(begun == 0, 0.0, 1.0))


def draw_order(key: jax.Array, images: int) -> jax.Array:
  """A random order of so many images: int32 [images]."""
  return jax.random.permutation(key, images)


def swapped(x: jax.Array, mask: jax.Array | None) -> jax.Array:
  """The first half of the rows and the second with each other's pixels where the mask is True.

  Done again it undoes itself. x: [B,h,w,C]; mask: bool [B/2,H,W], resized to the pixel nearest, or
  None to leave x alone.
  """
  if mask is None:
    return x
  mask = resize_nearest(mask, x.shape[1:3])[..., None]
  first, second = jnp.split(x, 2)
  parts = [jnp.where(mask, second, first), jnp.where(mask, first, second)]
  return jnp.concatenate(parts)


def said(
  network: Network,
  params: Tree,
  stats: Tree,
  images: jax.Array,
  mask: jax.Array | None,
  keys: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, ...], Tree]:
  """Logits [B,H,W,C] and features of images that are mixed by the mask, un-mixed; statistics."""
  size = images.shape[1:3]
  images = swapped(images, mask)
  features, stats = network.encode(params, stats, images, train=True, keys=keys)
  outputs, stats = network.decode(params, stats, features, size, train=True, keys=keys)
  logits = swapped(network.resize(outputs.logits, size), mask)
  return logits, tuple(swapped(x, mask) for x in features), stats


def projected(
  network: Network,
  params: Tree,
  stats: Tree,
  features: tuple[jax.Array, ...],
  train: bool,
  keys: jax.Array | None,
) -> tuple[jax.Array, Tree]:
  """The projection head's output [B,h,w,D] for features, and the statistics after it."""
  if keys is not None:  # other dropout than the decoder's
    keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
  return network.apply(params, stats, lambda m: m.projection(features, train, keys))
