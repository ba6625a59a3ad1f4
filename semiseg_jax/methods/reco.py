"""Regional contrast on top of a base method (Liu, Zhi, Johns and Davison, ICLR 2022)."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from semiseg_jax import contract
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Aux, TrainState, Tree
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.contrast import reco_loss
from semiseg_jax.methods import mean_teacher, supervised
from semiseg_jax.methods.supervised import Student, at_label_size
from semiseg_jax.models.networks import Outputs
from semiseg_jax.models.resize import resize_nearest

_SURE = 0.97  # the original's constant for its own labels of sparsely labelled images


@dataclasses.dataclass(frozen=True)
class Method(contract.Method):
  """A base method plus the ReCo loss, with weight 1.

  mixing: the mean teacher's, or None for ReCo on top of the supervised method. weak_threshold:
  confidence from which an unlabelled pixel takes part. strong_threshold: a query is hard if its
  probability is below. temperature, num_queries (per class and batch), num_negatives (per query):
  of the contrast. scope: pixels and mixing partners from the whole batch or the device's own.
  The others are the mean teacher's.
  """

  mixing: str | None = "classmix"
  weak_threshold: float = 0.7
  strong_threshold: float = 0.97
  temperature: float = 0.5
  num_queries: int = 256
  num_negatives: int = 512
  scale_range: Sequence[float] = (1.0, 1.0)
  ema_decay: float = 0.99
  partial: bool = False
  eight_bit_passes: bool = True
  scope: str = "global"

  uses_embedding = True

  @property
  def base(self) -> supervised.Method | mean_teacher.Method:
    if self.mixing is None:
      return supervised.Method()
    fields = [field.name for field in dataclasses.fields(mean_teacher.Method)]
    return mean_teacher.Method(**{name: getattr(self, name) for name in fields})

  def __post_init__(self):
    mean_teacher.require("scope", self.scope, ("global", "device"))
    _ = self.base  # its hyper-parameters are checked now, not in the middle of tracing

  @property
  def uses_teacher(self) -> bool:
    return self.base.uses_teacher

  @property
  def uses_unlabeled(self) -> bool:
    return self.base.uses_unlabeled

  def teacher_decay(self, state: TrainState) -> jax.Array:
    return self.base.teacher_decay(state)

  def targets(self, state: TrainState, batch: dict, key: jax.Array) -> dict:
    return self.base.targets(state, batch, key)

  def loss(
    self, params: Tree, state: TrainState, views: dict, key: jax.Array
  ) -> tuple[jax.Array, Aux]:
    student = self.base.student(params, state, views)
    contrast = self.contrast(student, views, jax.random.fold_in(key, 4))
    metrics = {**student.metrics, "reco_loss": contrast}
    return student.loss + contrast, Aux(
      metrics, student.batch_stats, views.get("teacher_batch_stats")
    )

  def contrast(self, student: Student, views: dict, key: jax.Array) -> jax.Array:
    """The ReCo loss over labelled and unlabelled pixels, at the network's stride."""
    labels = self.labeled_pixels(student.labeled, views["labeled"]["label"])
    parts, ranks = [(student.labeled, labels)], [views["labeled"]["rank"]]
    if student.unlabeled is not None:
      view = views["unlabeled"]
      known = jnp.where(view["confidence"] >= self.weak_threshold, view["label"], IGNORE)
      parts.append((student.unlabeled, known))
      ranks.append(supervised.ranks([len(labels), len(known)])[1])
    logits = jnp.concatenate([outputs.logits for outputs, _ in parts])
    size = logits.shape[1:3]
    return reco_loss(
      jnp.concatenate([outputs.embedding for outputs, _ in parts]),
      jnp.concatenate([resize_nearest(labels, size) for _, labels in parts]),
      jax.lax.stop_gradient(jax.nn.softmax(logits, axis=-1)),
      image_rank=jnp.concatenate(ranks),
      key=key,
      strong_threshold=self.strong_threshold,
      temperature=self.temperature,
      num_queries=self.num_queries,
      num_negatives=self.num_negatives,
      axis_name=DATA_AXIS,
      scope=self.scope,
    )

  def labeled_pixels(self, outputs: Outputs, labels: jax.Array) -> jax.Array:
    """The labels; with sparse ones in the semi-supervised mode, also the student's sure guesses."""
    if not (self.partial and self.uses_unlabeled):
      return labels
    probs = jax.nn.softmax(at_label_size(outputs.logits, labels), axis=-1)
    sure = jnp.where(probs.max(-1) >= _SURE, probs.argmax(-1).astype(labels.dtype), IGNORE)
    return jnp.where(labels != IGNORE, labels, sure)
