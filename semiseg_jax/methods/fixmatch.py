"""One strong view learns the weak view's confident labels (FixMatch, as UniMatch V2's code has it).

`fixmatch.py` of UniMatch V2 (Yang, Zhao and Zhao, TPAMI 2025): with an EMA teacher.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from semiseg_jax import contract
from semiseg_jax.augment.mix import box_mask, draw_fitting_boxes, mix_reversed
from semiseg_jax.augment.views import View, image_keys, labeled_view, ranks, strong_colors
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Aux, Batch, Loss, Params, TrainState, Tree
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.labeled import labeled_losses, make_loss
from semiseg_jax.losses.pixel import confident_loss, mean_where
from semiseg_jax.models.decision import most_likely
from semiseg_jax.models.network import Features
from semiseg_jax.values import NotNegative, Share

_TRANSFORM = "unimatch_unlabeled"  # whose labels say where an image is
_USE = 10  # of `image_keys`, for the colours of the first strong view; its box is the next


@dataclasses.dataclass(frozen=True)
class Method(contract.Method):
  """(the labelled loss + the mean of the strong views' losses) / 2.

  strong_threshold: confidence from which a pixel of the weak view is learnt; the loss is divided by
  the number of all pixels, margins aside. ema_decay: the teacher's, min(1 - 1/(step+1), ema_decay);
  the first step copies the student. supervised_loss, aux_weight: of the labelled pixels, as in
  methods/supervised.py. scope: CutMix partners from the whole batch ("global") or the device's own
  ("device"), reversed.
  """

  strong_threshold: Share = 0.95
  ema_decay: Share = 0.996
  supervised_loss: str = "ce"
  aux_weight: NotNegative = 0.4
  scope: Literal["global", "device"] = "global"

  VIEWS = 1
  streams = ("labeled", "unlabeled")
  networks = ("student", "teacher")
  scored = "teacher"

  def __post_init__(self):
    make_loss(self.supervised_loss)  # says what is wrong with it

  def check(self, config: Mapping[str, Any]) -> None:
    contract.refuse_domain(config, config["method"]["name"])
    if (name := config["data"]["unlabeled_transform"]["name"]) != _TRANSFORM:
      raise ValueError(
        f"config.data.unlabeled_transform.name={name!r}: {config['method']['name']} needs "
        f"{_TRANSFORM!r}, which tells an image from its margins"
      )

  @property
  def _partners(self) -> str | None:
    return DATA_AXIS if self.scope == "global" else None

  def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Tree:
    """The teacher, which is not in train mode, labels the weak view."""
    unlabeled = batch["unlabeled"]
    images = unlabeled["image"].astype(jnp.float32)
    outputs, _ = state.run("teacher", images, train=False)
    label, confidence = most_likely(
      state.forward["teacher"].resize(outputs.logits, images.shape[1:3])
    )
    weak = {
      "image": images,
      "label": label,
      "confidence": confidence,
      "valid": unlabeled["label"] != IGNORE,
    }
    return {
      "labeled": labeled_view(batch, key, augment=False),
      "strong": [self.strong_view(weak, unlabeled, key, number) for number in range(self.VIEWS)],
      "position": unlabeled["position"],
      "share": mean_where(confidence >= self.strong_threshold, weak["valid"], DATA_AXIS),
    }

  def strong_view(self, weak: View, unlabeled: View, key: jax.Array, number: int) -> View:
    """Jittered, grey, blurred; then a box from the batch's reversed images."""
    colors, box = (image_keys(key, unlabeled["position"], _USE + 2 * number + i) for i in (0, 1))
    image = strong_colors(weak["image"], colors)
    mask = box_mask(draw_fitting_boxes(box, image.shape[1:3]), image.shape[1:3])
    return mix_reversed({**weak, "image": image}, mask, self._partners)

  def perturb(self, features: Features, views: Tree, key: jax.Array) -> Features:
    """Of labelled and then all strong images, between encoder and decoder: as they are."""
    return features

  def loss(self, params: Params, state: TrainState, views: Tree, key: jax.Array) -> Loss:
    """One pass over all images: the original's several are equal to it without BatchNorms."""
    network, params = state.forward["student"], params["student"]
    labeled, strong = views["labeled"], views["strong"]
    images = jnp.concatenate([view["image"] for view in (labeled, *strong)])
    counts = [len(view["image"]) for view in (labeled, *strong)]
    keys = image_keys(key, jnp.concatenate(ranks(counts)), 6)
    stats = state.networks["student"].batch_stats
    features, stats = network.encode(params, stats, images, True, keys)
    features = self.perturb(features, views, key)
    outputs, stats = network.decode(params, stats, features, images.shape[1:3], True, keys)
    own, aux = network.resized(outputs, labeled["label"].shape[1:])
    count = counts[0]
    logits = own[:count], None if aux is None else aux[:count]
    losses = labeled_losses(
      make_loss(self.supervised_loss), logits, labeled["label"], state.step, state.facts.steps,
      self.aux_weight, DATA_AXIS,
    )  # fmt: skip
    parts = jnp.split(own[count:], self.VIEWS)
    losses["unsupervised_loss"] = sum(map(self._view_loss, parts, strong)) / self.VIEWS
    metrics = {**losses, "confident_share": views["share"]}
    return 0.5 * sum(losses.values()), Aux(metrics, {"student": stats})

  def _view_loss(self, logits: jax.Array, view: View) -> jax.Array:
    targets = view["label"], view["confidence"], view["valid"]
    return confident_loss(logits, *targets, self.strong_threshold, DATA_AXIS)

  def after(self, state: TrainState, aux: Aux) -> TrainState:
    """The teacher's statistics are averaged, too; the original's networks have none."""
    decay = jnp.minimum(1 - 1 / (state.step + 1), self.ema_decay)
    return state.averaged("teacher", "student", decay, statistics=decay)
