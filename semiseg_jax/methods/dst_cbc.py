"""Self-training on pseudo-labels from disk (DST-CBC, arXiv 2004.08514; DMT, its successor).

One network sees pseudo-labelled and labelled images in one batch. How much a pseudo-label counts
follows from what the network itself says of the pixel at that moment.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from semiseg_jax import contract
from semiseg_jax.collectives import DATA_AXIS, psum
from semiseg_jax.contract import Aux, Batch, Loss, Params, TrainState, Tree
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.dynamic import (
  disagrees,
  dynamic_weights,
  flipped,
  is_won,
  mutual_weights,
  online_labels,
  weighted_mean_loss,
)
from semiseg_jax.losses.pixel import mean_where
from semiseg_jax.values import NotNegative, Share

_RULES = ("dynamic", "stored", "mutual", "flip", "online")


@dataclasses.dataclass(frozen=True)
class Method(contract.Method):
  """The weights of pseudo-labelled pixels; labelled ones have weight 1.

  rule: dynamic, the label's probability now (DST-CBC) | stored, the labeller's confidence | mutual,
  the label's probability now, 0 where the network disagrees and is surer (DMT) | flip, as
  mutual but with the network's own label there | online, no labels from disk but the network's own,
  of weight 1 | None, labelled images alone. gamma: the power of the weights. gamma2: that where the
  network disagrees (mutual, flip). threshold: of the probability from which on a label counts
  (online).
  """

  rule: Literal[*_RULES] | None = "dynamic"
  gamma: NotNegative = 9.0
  gamma2: NotNegative = 5.0
  threshold: Share = 0.9

  @property
  def streams(self) -> tuple[str, ...]:
    return ("labeled",) if self.rule is None else ("labeled", "unlabeled")

  def check(self, config: Mapping[str, Any]) -> None:
    contract.refuse_domain(config, "this method")
    if self.rule in (None, "online"):
      return
    if not config["data"]["pseudo_labels"] and not config["rounds"]["count"]:
      raise ValueError(
        f"config.method.rule={self.rule!r} learns from pseudo-labels on disk, and there are none: "
        "set config.rounds.count, config.data.pseudo_labels, or config.method.rule='online'"
      )

  def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Tree:
    """The images as they came: no colours, no mixing, no teacher."""
    return batch

  def loss(self, params: Params, state: TrainState, views: Tree, key: jax.Array) -> Loss:
    """Of all images in one batch, pseudo-labelled ones first."""
    network, stats = state.forward["student"], state.networks["student"].batch_stats
    parts = [views[name] for name in reversed(self.streams)]
    images = jnp.concatenate([part["image"].astype(jnp.float32) for part in parts])
    labels = [part["label"].astype(jnp.int32) for part in parts]
    outputs, stats = network(params["student"], stats, images, train=True)
    logits = network.resize(outputs.logits, labels[0].shape[1:]).astype(jnp.float32)
    said = jax.lax.stop_gradient(logits)
    weights, metrics = [jnp.ones(label.shape, jnp.float32) for label in labels], {}
    if self.rule:
      own = said[: len(labels[0])]
      labels[0], weights[0], metrics = self.weighed(own, labels[0], parts[0].get("confidence"))
    labels, weights = jnp.concatenate(labels), jnp.concatenate(weights)
    loss = weighted_mean_loss(logits, labels, weights, DATA_AXIS)
    plain = weighted_mean_loss(said, labels, jnp.ones_like(weights), DATA_AXIS)
    mean = mean_where(weights, labels != IGNORE, DATA_AXIS, jnp.nan)
    metrics |= {"unweighted_loss": plain, "mean_weight": mean}
    return loss, Aux(metrics, {"student": stats})

  def weighed(
    self, logits: jax.Array, pseudo_label: jax.Array, confidence: jax.Array | None
  ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """(labels, weights, metrics) of the pseudo-labelled images."""
    if self.rule == "online":
      labels = online_labels(logits, self.threshold)
      return labels, jnp.ones(labels.shape, jnp.float32), {}
    if self.rule == "dynamic":
      return pseudo_label, dynamic_weights(logits, pseudo_label, self.gamma), {}
    if self.rule == "stored":
      return pseudo_label, confidence**self.gamma, {}
    counts = disagrees(logits, pseudo_label).sum(), is_won(logits, pseudo_label, confidence).sum()
    metrics = dict(zip(("disagreements", "won"), psum(counts, DATA_AXIS), strict=True))
    given = logits, pseudo_label, confidence, self.gamma, self.gamma2
    if self.rule == "mutual":
      return pseudo_label, mutual_weights(*given), metrics
    return *flipped(*given), metrics
