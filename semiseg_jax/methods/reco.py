"""Regional contrast on top of a base method (Liu, Zhi, Johns and Davison, ICLR 2022)."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from semiseg_jax.augment.views import MIXINGS, labeled_view, ranks
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Aux, Batch, Loss, Params, TrainState, Tree
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.contrast import reco_loss
from semiseg_jax.methods import mean_teacher
from semiseg_jax.methods.mean_teacher import Student
from semiseg_jax.models.decision import most_likely
from semiseg_jax.models.network import Network, Outputs
from semiseg_jax.models.resize import resize_nearest
from semiseg_jax.values import Channels, Count, Positive, Share

_SURE = 0.97  # the original's constant for its own labels of sparsely labelled images


@dataclasses.dataclass(frozen=True)
class Method(mean_teacher.Method):
  """The mean teacher plus the ReCo loss, with weight 1.

  mixing: the mean teacher's, or None for labelled images alone, without a teacher. weak_threshold:
  confidence from which an unlabelled pixel takes part. strong_threshold: a query is hard if its
  probability is below. temperature, num_queries (per class and batch), num_negatives (per query):
  of the contrast. embedding_dim: of the representation head. scope: pixels and mixing partners from
  the whole batch or the device's own. The others are the mean teacher's.
  """

  mixing: Literal[*MIXINGS] | None = "classmix"
  weak_threshold: Share = 0.7
  temperature: Positive = 0.5
  num_queries: Count = 256
  num_negatives: Count = 512
  embedding_dim: Channels = 256

  @property
  def streams(self) -> tuple[str, ...]:
    return ("labeled",) if self.mixing is None else super().streams

  @property
  def networks(self) -> tuple[str, ...]:
    return ("student",) if self.mixing is None else super().networks

  @property
  def scored(self) -> str:
    return "student" if self.mixing is None else super().scored

  def heads(self) -> dict[str, int]:
    return {"representation": self.embedding_dim}

  def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Tree:
    if self.mixing is None:
      return {"labeled": labeled_view(batch, key)}
    return super().targets(state, batch, key)

  def loss(self, params: Params, state: TrainState, views: Tree, key: jax.Array) -> Loss:
    student = self.student(params, state, views, key)
    network, key = state.forward["student"], jax.random.fold_in(key, 4)
    losses = {**student.losses, "reco_loss": self.contrast(network, student, views, key)}
    batch_stats = {**views.get("batch_stats", {}), "student": student.batch_stats}
    return sum(losses.values()), Aux(losses, batch_stats)

  def contrast(self, network: Network, student: Student, views: Tree, key: jax.Array) -> jax.Array:
    """The ReCo loss over labelled and unlabelled pixels, at the network's stride."""
    labels = self.labeled_pixels(network, student.labeled, views["labeled"]["label"])
    parts, rank = [(student.labeled, labels)], [views["labeled"]["rank"]]
    if student.unlabeled is not None:
      view = views["unlabeled"]
      known = jnp.where(view["confidence"] >= self.weak_threshold, view["label"], IGNORE)
      parts.append((student.unlabeled, known))
      rank.append(ranks([len(labels), len(known)])[1])
    logits = jnp.concatenate([outputs.logits for outputs, _ in parts])
    size = logits.shape[1:3]
    return reco_loss(
      jnp.concatenate([outputs.embedding for outputs, _ in parts]),
      jnp.concatenate([resize_nearest(labels, size) for _, labels in parts]),
      jax.lax.stop_gradient(jax.nn.softmax(logits, axis=-1)),
      image_rank=jnp.concatenate(rank),
      key=key,
      strong_threshold=self.strong_threshold,
      temperature=self.temperature,
      num_queries=self.num_queries,
      num_negatives=self.num_negatives,
      axis_name=DATA_AXIS,
      scope=self.scope,
    )

  def labeled_pixels(self, network: Network, outputs: Outputs, labels: jax.Array) -> jax.Array:
    """The labels; with sparse ones in the semi-supervised mode, also the student's sure guesses."""
    if not (self.partial and "unlabeled" in self.streams):
      return labels
    guess, confidence = most_likely(network.resize(outputs.logits, labels.shape[1:]))
    sure = jnp.where(confidence >= _SURE, guess, IGNORE)
    return jnp.where(labels != IGNORE, labels, sure)

  def after(self, state: TrainState, aux: Aux) -> TrainState:
    return state if self.mixing is None else super().after(state, aux)
