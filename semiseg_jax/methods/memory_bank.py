"""Positive contrast with a class-wise memory bank (Alonso et al., ICCV 2021; `trainSSL.py`).

A mean teacher labels every unlabelled pixel, weighted by its confidence; two strong views of each
unlabelled image are learnt from. Pixels are pulled towards the vectors of their class that the
teacher found on correctly predicted labelled pixels and keeps in a bank.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from semiseg_jax import contract
from semiseg_jax.augment import memory_bank as augmentation
from semiseg_jax.augment.memory_bank import STRONG, WEAK, Strength
from semiseg_jax.augment.views import image_keys
from semiseg_jax.collectives import DATA_AXIS, cond, value_and_grad
from semiseg_jax.contract import Aux, Batch, Facts, Loss, Params, TrainState, Tree
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses import balance, bank, pixel
from semiseg_jax.losses.balance import ClassTables
from semiseg_jax.losses.bank import Bank
from semiseg_jax.losses.memory import MEMORY_WEIGHTS, remember, selected_contrast
from semiseg_jax.models.decision import most_likely
from semiseg_jax.models.network import Outputs, Variables
from semiseg_jax.models.resize import resize_nearest
from semiseg_jax.schedules import cosine_decay
from semiseg_jax.values import (
  Channels,
  Count,
  NotNegative,
  Positive,
  Range,
  Share,
  Steps,
  StepsFrom0,
)

_METRICS = (
  "supervised_loss",
  "pseudo_label_loss",
  "entropy_loss",
  "labeled_contrast",
  "unlabeled_contrast",
)
_DOMAIN_END = 100  # the last steps of a run, which the two schedules of a second domain treat apart


@flax.struct.dataclass
class Memory:
  """The method's state: the bank, and the class balancing's tables."""

  bank: Bank
  tables: ClassTables | None


@dataclasses.dataclass(frozen=True)
class Method(contract.Method):
  """The original's method; defaults are its script's for Cityscapes with a DeepLabV2.

  ramp_steps: until which the pseudo-labels' weight rises, and after which ClassMix of the
  unlabelled images, class balancing and the contrast begin. bank_lead: steps before that, from
  which the bank is filled. memory_per_class: its rows. quota_factor: of the rows that an image
  may put in (a third of the classes on Pascal VOC). threshold: confidence above which a labelled
  pixel may be remembered. entropy_weight, contrast_weight: of these losses. class_balancing: weigh
  classes by how rare they are in labels and pseudo-labels. background: a class that ClassMix pastes
  only where it is alone (0 on Pascal VOC), -1 for none. labeled_mix: probability of ClassMix on
  labelled images. use_teacher: who labels and fills the bank; else the student. warmup_rate: of the
  teacher's momentum, 1 - 1 / (warmup_rate step + 1).

  Where code and paper or common practice differ: memory_weights "code" | "rescaled"; rank_order
  "ascending" | "descending"; entropy_broadcast; isotropic_blur; eight_bit_jitter.
  domain_schedule: with a second domain's labels, "alternate" takes them every other step but for
  the last hundred; "code" only then, as the released script does. alternate: learn from labelled
  images at even steps and from unlabelled ones at odd steps (`trainSSL_less_memory.py`).
  head_dim: of the projection head and all behind it.
  """

  ramp_steps: Steps = 2000
  bank_lead: StepsFrom0 = 1000
  memory_per_class: Count = 256
  quota_factor: Positive = 1.0
  threshold: Share = 0.95
  entropy_weight: NotNegative = 0.01
  contrast_weight: NotNegative = 0.1
  class_balancing: bool = True
  background: Annotated[int, Range(-1, 254)] = -1
  labeled_mix: Share = 0.2
  use_teacher: bool = True
  warmup_rate: Positive = 10.0
  memory_weights: Literal[*MEMORY_WEIGHTS] = "code"
  rank_order: Literal[*bank.RANK_ORDERS] = "ascending"
  entropy_broadcast: bool = False
  isotropic_blur: bool = False
  eight_bit_jitter: bool = False
  domain_schedule: Literal["alternate", "code"] = "alternate"
  alternate: bool = False
  head_dim: Channels = 256

  streams = ("labeled", "unlabeled")
  networks = ("student", "teacher")
  state_spec = Memory(Bank(P(None, DATA_AXIS), P(), P()), P())

  def heads(self) -> dict[str, int]:
    return {"selectors": self.head_dim}

  def check(self, config: Mapping[str, Any]) -> None:
    labeled, domain = config["data"]["labeled_batch"], config["data"]["domain"]
    if domain["name"] and domain["batch"] != labeled:
      raise ValueError(
        f"config.data.domain.batch={domain['batch']} but config.data.labeled_batch={labeled}: the "
        "memory bank takes either batch at a step, so give both the same size"
      )
    if domain["name"] and self.alternate:
      raise ValueError(
        f"config.data.domain.name={domain['name']!r} with config.method.alternate=True: its "
        "batches would fall on steps that learn from no labels; leave out one of the two"
      )

  def elements(self, facts: Facts) -> int:
    """Rows that a class may put into the bank at a step."""
    quota = bank.quota(facts.labeled_images, self.memory_per_class, self.quota_factor)
    return facts.labeled_batch * quota

  def start(
    self, student: Variables, make: Callable[[int], Variables], facts: Facts
  ) -> tuple[dict[str, Variables], Memory]:
    """The teacher has the student's parameters, and BatchNorm's statistics from scratch."""
    fresh = {"mean": jnp.zeros_like, "var": jnp.ones_like}
    start = lambda path, leaf: fresh[path[-1].key](leaf)
    teacher = student._replace(batch_stats=jax.tree.map_with_path(start, student.batch_stats))
    return {"student": student, "teacher": teacher}, self.empty_memory(facts)

  def empty_memory(self, facts: Facts) -> Memory:
    slots = bank.slots(self.memory_per_class, self.elements(facts), facts.labeled_batch)
    tables = None
    if self.class_balancing:
      labeled = max(facts.labeled_images // facts.labeled_batch, 1)
      unlabeled = max(facts.unlabeled_images // facts.unlabeled_batch, 1)
      tables = balance.empty_tables(labeled, unlabeled, facts.num_classes)
    return Memory(bank.empty(facts.num_classes, slots, self.head_dim), tables)

  def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Tree:
    labeled, is_domain = self.labeled_batch(state, batch)
    unlabeled, memory = batch["unlabeled"], state.method_state
    images = unlabeled["image"].astype(jnp.float32)
    keys = image_keys(key, unlabeled["position"], 0)
    takes = self.takes(state)
    labels, confidence, teacher_stats = cond(
      takes["unlabeled"],
      lambda: self.pseudo_labels(state, images, keys),
      lambda: _no_labels(state, images),
    )
    views = self.views(state, labeled, {**unlabeled, "label": labels}, confidence, key)
    if self.class_balancing:
      counted = balance.add_labeled(memory.tables, labeled["label"].astype(jnp.int32), DATA_AXIS)
      tables = _where(takes["labeled"] & ~is_domain, counted, memory.tables)
      counted = balance.add_unlabeled(tables, labels, DATA_AXIS)
      tables = _where(takes["unlabeled"] & ~is_domain, counted, tables)
      memory = memory.replace(tables=tables)
    filled, teacher_stats = lax.cond(
      (state.step > self.ramp_steps - self.bank_lead) & takes["labeled"] & ~is_domain,
      lambda stats: self.remembered(state, stats, views["labeled"]),
      lambda stats: (memory.bank, stats),
      teacher_stats,
    )
    memory = memory.replace(bank=filled)
    return {**views, "memory": memory, "teacher_stats": teacher_stats}

  def takes(self, state: TrainState) -> dict[str, jax.Array]:
    """Which of the two streams this step learns from: bool []."""
    is_even = state.step % 2 == 0
    return {
      "labeled": is_even | (not self.alternate),
      "unlabeled": ~is_even | (not self.alternate),
    }

  def labeled_batch(self, state: TrainState, batch: dict) -> tuple[dict, jax.Array]:
    """This step's labelled images, and whether they are of the second domain."""
    if "domain" not in batch:
      return batch["labeled"], jnp.zeros((), bool)
    is_end = state.step >= state.facts.steps - _DOMAIN_END
    is_domain = (state.step % 2 == 1) & (is_end == (self.domain_schedule == "code"))
    return _where(is_domain, batch["domain"], batch["labeled"]), is_domain

  def pseudo_labels(
    self, state: TrainState, images: jax.Array, keys: jax.Array
  ) -> tuple[jax.Array, jax.Array, Tree]:
    """Label and confidence [B,H,W] of plain crops, and the teacher's statistics after it.

    The teacher is in train mode; a student that labels is not, and leaves the teacher alone.
    """
    outputs, stats = state.run(self.labeler, images, train=self.use_teacher, keys=keys)
    logits = state.forward[self.labeler].resize(outputs.logits, images.shape[1:3])
    teacher_stats = stats if self.use_teacher else state.networks["teacher"].batch_stats
    return *most_likely(logits), teacher_stats

  @property
  def labeler(self) -> str:
    """Which network labels and fills the bank."""
    return "teacher" if self.use_teacher else "student"

  def views(
    self,
    state: TrainState,
    labeled: dict[str, jax.Array],
    unlabeled: dict[str, jax.Array],
    confidence: jax.Array,
    key: jax.Array,
  ) -> dict:
    """One weak view of labelled images; two strong ones of unlabelled, one behind the other."""
    weak = dataclasses.replace(WEAK, mix=self.labeled_mix)
    strong = self.view(unlabeled, confidence, STRONG, key, 2, state.step > self.ramp_steps)
    other = self.view(unlabeled, confidence, STRONG, key, 3, state.step > self.ramp_steps)
    join = lambda *parts: jnp.concatenate(parts)
    return {
      "labeled": self.view(labeled, None, weak, key, 1, True),
      "unlabeled": jax.tree.map(join, strong, other),
    }

  def view(
    self,
    images: dict[str, jax.Array],
    confidence: jax.Array | None,
    strength: Strength,
    key: jax.Array,
    use: int,
    may_mix: jax.typing.ArrayLike,
  ) -> dict[str, jax.Array]:
    """One augmented view; `use` separates the draws."""
    strength = dataclasses.replace(
      strength, isotropic_blur=self.isotropic_blur, eight_bit_jitter=self.eight_bit_jitter
    )
    labels = images["label"].astype(jnp.int32)
    keys = image_keys(key, images["position"], use)
    background = None if self.background < 0 else self.background
    draws = augmentation.draw_view(
      jax.random.fold_in(key, use), keys, labels, strength, background, may_mix
    )
    levels, labels, confidence = augmentation.augment(
      images["image"], labels, confidence, draws, strength, DATA_AXIS
    )
    view = {"image": levels, "label": labels, "keys": keys}
    return view if confidence is None else {**view, "confidence": confidence}

  def remembered(self, state: TrainState, teacher_stats: Tree, view: dict) -> tuple[Bank, Tree]:
    """The bank with this step's labelled pixels that are surely right; the teacher's statistics."""
    params, stats = state.networks[self.labeler]
    network, by_teacher = state.forward[self.labeler], self.use_teacher
    keys = view["keys"] if by_teacher else None
    stats = teacher_stats if by_teacher else stats
    outputs, stats = network(params, stats, view["image"], train=by_teacher, keys=keys)
    guess, confidence = most_likely(network.resize(outputs.logits, view["label"].shape[1:]))
    rows, label = pixel_rows(outputs, view["label"])
    at_grid = lambda maps: resize_nearest(maps, outputs.features.shape[1:3]).reshape(-1)
    is_right = at_grid(guess.astype(label.dtype)) == label
    classes = jnp.where(is_right & (at_grid(confidence) > self.threshold), label, IGNORE)
    rows, stats = network.apply(
      params, stats, lambda m: m.projection_head(rows, classes != IGNORE, by_teacher)
    )
    teacher_stats = stats if by_teacher else teacher_stats
    return state.forward["teacher"].apply(
      state.networks["teacher"].params,
      teacher_stats,
      lambda module: remember(
        state.method_state.bank,
        module.selectors,
        rows,
        classes,
        elements=self.elements(state.facts),
        capacity=self.memory_per_class,
        rank_order=self.rank_order,
        axis_name=DATA_AXIS,
      ),
    )

  def gradient(
    self, params: Params, state: TrainState, views: Tree, key: jax.Array
  ) -> tuple[jax.Array, Aux, Params]:
    """Of both passes, or of the one whose turn it is."""
    if not self.alternate:
      return super().gradient(params, state, views, key)

    def branch(name: str, params: Params) -> tuple[jax.Array, Aux, Params]:
      only = functools.partial(self.loss, only=name)
      loss, aux, grads = value_and_grad(only, params, state, views, key)
      return loss, aux._replace(method_state=None), grads

    # A branch takes its own gradient: that of a choice would keep room for both's activations.
    branches = (functools.partial(branch, name) for name in ("labeled", "unlabeled"))
    loss, aux, grads = cond(self.takes(state)["labeled"], *branches, params)
    return loss, aux._replace(method_state=views["memory"]), grads

  def loss(
    self, params: Params, state: TrainState, views: Tree, key: jax.Array, only: str | None = None
  ) -> Loss:
    """Both passes, the unlabelled one first, or one of them; all move the student's statistics.

    Metrics are NaN for what a single pass does not have.
    """
    memory, pixels, total = views["memory"], {}, 0.0
    network, params = state.forward["student"], params["student"]
    stats = state.networks["student"].batch_stats
    metrics = dict.fromkeys(_METRICS, jnp.full((), jnp.nan))
    for name in ("unlabeled", "labeled") if only is None else (only,):
      view = views[name]
      outputs, stats = network(params, stats, view["image"], train=True, keys=view["keys"])
      losses = self.pixel_losses(state, memory, name, outputs, view)
      total = total + sum(weight * loss for weight, loss in losses.values())
      metrics |= {key: loss for key, (_, loss) in losses.items()}
      pixels[name] = pixel_rows(outputs, view["label"])
    ordered = {name: pixels[name] for name in ("labeled", "unlabeled") if name in pixels}
    contrast, stats = self.contrast(params, stats, state, list(ordered.values()), memory.bank)
    total = total + self.contrast_weight * contrast.sum()
    metrics |= {f"{name}_contrast": contrast[i] for i, name in enumerate(ordered)}
    metrics["bank_rows"] = memory.bank.count.sum().astype(jnp.float32)
    batch_stats = {"student": stats, "teacher": views["teacher_stats"]}
    return total, Aux(metrics, batch_stats, memory)

  def pixel_losses(
    self, state: TrainState, memory: Memory, name: str, outputs: Outputs, view: dict
  ) -> dict[str, tuple[float, jax.Array]]:
    """{metric: (weight, loss)} of one pass."""
    labels = view["label"]
    logits = state.forward["student"].resize(outputs.logits, labels.shape[1:])
    weights = self.class_weights(state, memory, name)
    if name == "labeled":
      loss = pixel.class_weighted_loss(logits, labels, weights, DATA_AXIS)
      return {"supervised_loss": (1.0, loss)}
    confidence = pixel.pseudo_label_weights(view["confidence"], state.step, self.ramp_steps)
    loss = pixel.pseudo_label_loss(logits, labels, confidence, weights, DATA_AXIS)
    entropy = pixel.entropy_loss(logits, labels, DATA_AXIS, broadcast=self.entropy_broadcast)
    return {"pseudo_label_loss": (1.0, loss), "entropy_loss": (self.entropy_weight, entropy)}

  def class_weights(self, state: TrainState, memory: Memory, name: str) -> jax.Array:
    """[K], ones until the ramp has ended and the tables are full.

    The unlabelled steps of the alternating script do not wait for the ramp.
    """
    ones = jnp.ones(state.facts.num_classes)
    if not self.class_balancing:
      return ones
    begun = (state.step > self.ramp_steps) | (self.alternate and name == "unlabeled")
    return jnp.where(begun, balance.class_weights(memory.tables), ones)

  def contrast(
    self, params: Tree, stats: Tree, state: TrainState, pixels: list[tuple], memory: Bank
  ) -> tuple[jax.Array, Tree]:
    """The contrastive losses of each of pixels, (rows, classes), 0 until the ramp has ended."""

    def term(module, rows: jax.Array, classes: jax.Array) -> jax.Array:
      has_class = classes != IGNORE
      rows = module.projection_head(rows, has_class, True)
      rows = module.prediction_head(rows, has_class, True)
      return selected_contrast(
        module.selectors,
        module.memory_selectors,
        rows,
        classes,
        memory,
        memory_weights=self.memory_weights,
        axis_name=DATA_AXIS,
      )

    def terms(stats: Tree) -> tuple[jax.Array, Tree]:
      all_terms = lambda module: jnp.stack([term(module, *of_pass) for of_pass in pixels])
      return state.forward["student"].apply(params, stats, all_terms)

    def nothing(stats: Tree) -> tuple[jax.Array, Tree]:
      return jnp.zeros(len(pixels)), stats

    return cond(state.step > self.ramp_steps, terms, nothing, stats)

  def after(self, state: TrainState, aux: Aux) -> TrainState:
    decay = cosine_decay(state.step, state.facts.steps, self.warmup_rate)
    return state.averaged("teacher", "student", decay)


def pixel_rows(outputs: Outputs, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Features [M,D] of every pixel of the network's grid, and their labels [M]."""
  features = outputs.features
  return features.reshape(-1, features.shape[-1]), resize_nearest(
    labels, features.shape[1:3]
  ).reshape(-1)


def _where(condition: jax.Array, left: Tree, right: Tree) -> Tree:
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), left, right)


def _no_labels(state: TrainState, images: jax.Array) -> tuple[jax.Array, jax.Array, Tree]:
  """In the place of pseudo-labels at a step that has none."""
  shape = images.shape[:3]
  return jnp.zeros(shape, jnp.int32), jnp.zeros(shape), state.networks["teacher"].batch_stats
