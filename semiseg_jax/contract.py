"""What the parts promise each other: the state of a run, a batch, and what a method is.

Batch  {"labeled": {"image", "label", "position"}, "unlabeled": {the same}, "domain": {the same}}
       image [B,H,W,3] levels 0..255, uint8 or, where an original resizes in floating point,
       float32; label uint8 [B,H,W] (IGNORE = no label); position int32 [B] is the image's place in
       its stream, from which its random key is folded. "domain": labelled images of a second
       dataset, where a run has them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
from jax.sharding import PartitionSpec as P

from semiseg_jax.collectives import value_and_grad
from semiseg_jax.models.network import Network, Variables

Tree = Any
Batch = dict[str, dict[str, jax.Array]]
Params = dict[str, Tree]  # of each trained network, by its name


class Facts(NamedTuple):
  """What is fixed for a run before it starts.

  steps: of the run; images of each stream; rows of each global batch, 0 without that stream.
  """

  num_classes: int
  steps: int
  labeled_images: int
  unlabeled_images: int
  labeled_batch: int
  unlabeled_batch: int


@flax.struct.dataclass
class TrainState:
  """Everything that a run needs to go on; every array of it is checkpointed.

  networks: the arrays of each, by its name. forward, the networks without their arrays, and facts
  are not part of the pytree.
  """

  step: jax.Array
  networks: dict[str, Variables]
  opt_state: Tree
  method_state: Tree
  rng: jax.Array
  forward: Mapping[str, Network] = flax.struct.field(pytree_node=False)
  facts: Facts = flax.struct.field(pytree_node=False)

  def run(
    self, name: str, images: jax.Array, train: bool, keys: jax.Array | None = None
  ) -> tuple[Any, Tree]:
    """(outputs, batch_stats) of one of the networks as it stands; see `Network.__call__`."""
    return self.forward[name](*self.networks[name], images, train, keys)

  def with_arrays(
    self, params: Params | None = None, batch_stats: dict[str, Tree] | None = None
  ) -> "TrainState":
    """The same with new parameters or statistics of the networks named there."""
    networks = dict(self.networks)
    for name, tree in (params or {}).items():
      networks[name] = networks[name]._replace(params=tree)
    for name, tree in (batch_stats or {}).items():
      networks[name] = networks[name]._replace(batch_stats=tree)
    return self.replace(networks=networks)

  def averaged(
    self, teacher: str, student: str, decay: jax.Array, statistics: jax.Array | int = 1
  ) -> "TrainState":
    """The teacher's parameters as decay * teacher + (1 - decay) * student, in float32.

    statistics: the decay of its batch statistics; 1 leaves them as they are.
    """
    mean = lambda kept: lambda old, new: kept * old + (1 - kept) * new
    old, new = (self.networks[name] for name in (teacher, student))
    params = jax.tree.map(mean(decay), old.params, new.params)
    if isinstance(statistics, int) and statistics == 1:
      return self.with_arrays(params={teacher: params})
    stats = jax.tree.map(mean(statistics), old.batch_stats, new.batch_stats)
    return self.with_arrays(params={teacher: params}, batch_stats={teacher: stats})


class Aux(NamedTuple):
  """What a method's loss hands on beside the loss.

  metrics: scalars of this device. batch_stats: new statistics of the networks that ran in train
  mode, by name. method_state: the new one, None if it stays. extra: whatever else `after` needs.
  """

  metrics: dict[str, jax.Array]
  batch_stats: dict[str, Tree]
  method_state: Tree = None
  extra: Tree = None


Loss = tuple[jax.Array, Aux]


def refuse_domain(config: Mapping[str, Any], who: str) -> None:
  """ValueError if a whole config has a second domain, from which this method (who) can't learn."""
  if name := config["data"]["domain"]["name"]:
    raise ValueError(
      f"config.data.domain.name={name!r}: {who} learns from one domain; leave it out or take "
      "another method"
    )


class Method:
  """What every method's class inherits: a frozen dataclass whose fields are the keys of
  config.method beside `name`.

  All functions run per device inside the mapped step, over the mesh axis "data", but for `check`
  and `start`, which run on the host. The step minimises the mean over devices of the loss. `key` is
  equal on all devices.

  streams: what a batch has beside a second domain. networks: the names of all there are. trained:
  of those that get gradients. scored: of the one that is evaluated by default. state_spec: how
  method_state lies on the mesh, a tree of PartitionSpecs, or the start of one.
  """

  streams: tuple[str, ...] = ("labeled",)
  networks: tuple[str, ...] = ("student",)
  trained: tuple[str, ...] = ("student",)
  scored: str = "student"
  state_spec: Tree = P()

  def heads(self) -> dict[str, int]:
    """What the networks need beside the classifier, and its dimension: see `networks.add_heads`."""
    return {}

  def check(self, config: Mapping[str, Any]) -> None:
    """Raises ValueError for values of the whole config that don't fit this method."""

  def start(
    self, student: Variables, make: Callable[[int], Variables], facts: Facts
  ) -> tuple[dict[str, Variables], Tree]:
    """The networks and the method_state at the start of a run.

    student: fresh, or with the weights that the run starts from; also the best network so far when
    training goes back to it. make(seed): another one of another initialisation. Without an
    override every network starts as the student.
    """
    return dict.fromkeys(self.networks, student), None

  def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Tree:
    """The views to learn from, without a gradient."""
    raise NotImplementedError

  def loss(self, params: Params, state: TrainState, views: Tree, key: jax.Array) -> Loss:
    """What is differentiated with respect to params, those of the trained networks."""
    raise NotImplementedError

  def gradient(
    self, params: Params, state: TrainState, views: Tree, key: jax.Array
  ) -> tuple[jax.Array, Aux, Params]:
    """(loss, aux, gradients); of `loss` unless a method knows better."""
    return value_and_grad(self.loss, params, state, views, key)

  def after(self, state: TrainState, aux: Aux) -> TrainState:
    """The state once the optimiser has moved, with its step still that of the update.

    aux: of the update's last batch.
    """
    return state
