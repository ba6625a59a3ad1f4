"""What the parts promise each other: the state of a run, a batch, and what a method is.

Batch  {"labeled": {"image", "label", "position"}, "unlabeled": {the same}, "domain": {the same}}
       image [B,H,W,3] levels 0..255, uint8 or, where an original resizes in floating point,
       float32; label uint8 [B,H,W] (IGNORE = no label); position int32 [B] is the image's place in
       its stream, from which its random key is folded. "domain": labelled images of another
       domain, where a run has them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
from flax import nnx
from jax.sharding import PartitionSpec as P

from semiseg_jax import fields
from semiseg_jax.augment.levels import IMAGENET, NORMALIZATIONS, Normalization, normalize
from semiseg_jax.models import networks
from semiseg_jax.models.resize import resize_bilinear

Tree = Any
Batch = dict[str, dict[str, jax.Array]]


class Variables(NamedTuple):
  """What a network computes with: trained parameters and BatchNorm's running statistics."""

  params: Tree
  batch_stats: Tree


@dataclasses.dataclass(frozen=True)
class Network:
  """A network without its arrays, and the input that its weights expect.

  frozen: paths of the parameters that are never trained.
  """

  graphdef: nnx.GraphDef
  normalization: Normalization = IMAGENET
  frozen: tuple[tuple[str, ...], ...] = ()
  align_corners: bool = True

  def __call__(
    self,
    params: Tree,
    batch_stats: Tree,
    images: jax.Array,
    train: bool,
    keys: jax.Array | None = None,
  ) -> tuple[networks.Outputs, Tree]:
    """(outputs, batch_stats) of RGB levels [B,H,W,3]; keys [B]: of dropout, None = without."""
    images = normalize(images, self.normalization)
    return networks.forward(self.graphdef, params, batch_stats, images, train, keys)

  def resize(self, logits: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Logits [B,h,w,K] -> [B,*size,K], bilinear, as this network's original does it."""
    return resize_bilinear(logits, size, align_corners=self.align_corners)

  def apply(
    self, params: Tree, batch_stats: Tree, function: Callable[[nnx.Module], Any]
  ) -> tuple[Any, Tree]:
    """(function(module), batch_stats): any part of the network, which takes normalised images."""
    return networks.apply(self.graphdef, params, batch_stats, function)


def split_network(
  module: nnx.Module, normalization: Normalization = IMAGENET
) -> tuple[Variables, Network]:
  """A fresh network's arrays, and what it is without them."""
  graphdef, *trees = networks.split(module)
  leaves = jax.tree.leaves_with_path(networks.frozen(module))
  frozen = tuple(tuple(entry.key for entry in path) for path, value in leaves if value)
  return Variables(*trees), Network(graphdef, normalization, frozen)


def build_network(model: Mapping[str, Any], **options: Any) -> tuple[Variables, Network]:
  """A fresh network by its description, which is what checkpoints keep of it.

  model: arguments of `networks.create`, and `normalization`, a name of NORMALIZATIONS. options:
  further arguments, of how it computes: dtype, axis_name, remat, seed.
  """
  arguments = dict(model)
  normalization = arguments.pop("normalization")
  if normalization not in NORMALIZATIONS:
    raise ValueError(
      f"config.model.normalization={normalization!r}: "
      f"{fields.nearest(normalization, NORMALIZATIONS)}"
    )
  return split_network(networks.create(**arguments, **options), NORMALIZATIONS[normalization])


class Facts(NamedTuple):
  """What is fixed for a run before it starts.

  steps: of the run; images of each stream; rows of each global batch, 0 without that stream;
  head_dim: of the network's projection head.
  """

  num_classes: int
  steps: int
  labeled_images: int
  unlabeled_images: int
  labeled_batch: int
  unlabeled_batch: int
  head_dim: int


@flax.struct.dataclass
class TrainState:
  """Everything that a run needs to go on; every array of it is checkpointed.

  forward, the network, and facts are not part of the pytree.
  """

  step: jax.Array
  params: Tree
  batch_stats: Tree
  teacher: Variables | None
  opt_state: Tree
  method_state: Tree
  rng: jax.Array
  forward: Network = flax.struct.field(pytree_node=False)
  facts: Facts = flax.struct.field(pytree_node=False)

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


class Method:
  """What every method's class inherits: a frozen dataclass whose fields are the keys of
  config.method beside `name`.

  All functions run per device inside the mapped step, over the mesh axis "data", but for `init`
  and `init_teacher`, which see whole arrays on the host. The step minimises the mean over devices
  of the loss. `key` is equal on all devices.
  """

  uses_teacher = False
  uses_unlabeled = False
  uses_embedding = False  # the network's representation head
  uses_row_heads = False  # its projection and prediction heads and selectors
  partial = False  # whether it is set to learn from sparse labels
  domain_replaces = False  # whether a second domain's batch takes the labelled one's place

  # Passes of the student that have losses of their own: what `only` of `loss` can name, in order.
  passes: tuple[str, ...] = ()
  alternate = False  # whether it is set to learn from one of them at a step, as `turn` has it

  # How method_state lies on the mesh: a tree of PartitionSpecs, or the start of one.
  state_spec: Tree = P()

  def init(self, facts: Facts) -> Tree:
    """The method_state at the start of a run."""
    return None

  def init_teacher(self, student: Variables) -> Variables:
    """The teacher at the start of a run, and after a best network was loaded again."""
    return student

  def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Tree:
    """The views to learn from, without a gradient."""
    raise NotImplementedError

  def loss(
    self, params: Tree, state: TrainState, views: Tree, key: jax.Array
  ) -> tuple[jax.Array, Aux]:
    """What is differentiated with respect to params."""
    raise NotImplementedError

  def turn(self, state: TrainState) -> jax.Array:
    """Which of `passes` this step learns from, int32 []: what `only` of its loss will name."""
    raise NotImplementedError

  def update(self, state: TrainState, aux: Aux) -> Tree:
    """The method_state after the gradient."""
    return state.method_state

  def trained(self, state: TrainState) -> dict[str, jax.Array]:
    """Top-level modules that are trained only in part: 0 or 1, [] or [K] along their leading axis.

    What is 0 is neither moved nor decayed. state: after `update`.
    """
    return {}

  def teacher_decay(self, state: TrainState) -> jax.Array:
    """The share of the teacher that this step's update keeps."""
    raise NotImplementedError
