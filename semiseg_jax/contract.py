"""What the parts promise each other: the state of a run, a batch, and what a method is.

Batch  {"labeled": {"image", "label", "position"}, "unlabeled": {the same}, "source": {the same}}
       image [B,H,W,3] levels 0..255, uint8 or, where an original resizes in floating point,
       float32; label uint8 [B,H,W] (IGNORE = no label); position int32 [B] is the image's place in
       its stream, from which its random key is folded. "source": labelled images of another
       domain, where a run has them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax

Tree = Any
Batch = dict[str, dict[str, jax.Array]]


class Variables(NamedTuple):
  """What a network computes with: trained parameters and BatchNorm's running statistics."""

  params: Tree
  batch_stats: Tree


@flax.struct.dataclass
class TrainState:
  """Everything that a run needs to go on; every array of it is checkpointed.

  forward(params, batch_stats, images, train) -> (Outputs, batch_stats) is the network itself; it
  is not part of the pytree.
  """

  step: jax.Array
  params: Tree
  batch_stats: Tree
  teacher: Variables | None
  opt_state: Tree
  method_state: Tree
  rng: jax.Array
  forward: Callable = flax.struct.field(pytree_node=False)

  @property
  def student(self) -> Variables:
    return Variables(self.params, self.batch_stats)


class Aux(NamedTuple):
  """What a method's loss hands on beside the loss.

  metrics: scalars of this device; batch_stats: the student's, after its forward passes;
  teacher_batch_stats: the teacher's (None without a teacher); update: whatever `update` needs.
  """

  metrics: dict[str, jax.Array]
  batch_stats: Tree
  teacher_batch_stats: Tree = None
  update: Tree = None


class Method(Protocol):
  """A frozen dataclass of hyper-parameters (exactly the keys of config.method beside `name`).

  All functions run per device inside the mapped step, over the mesh axis "data". The step
  minimises the mean over devices of the loss. `key` is equal on all devices.
  """

  uses_teacher: bool
  uses_unlabeled: bool
  uses_embedding: bool

  def init(self, num_classes: int) -> Tree: ...

  def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Tree: ...

  def loss(
    self, params: Tree, state: TrainState, views: Tree, key: jax.Array
  ) -> tuple[jax.Array, Aux]: ...

  def update(self, state: TrainState, aux: Aux) -> Tree: ...

  def teacher_decay(self, step: jax.Array) -> jax.Array: ...
