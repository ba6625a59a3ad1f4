"""From a config to everything that a run needs, checked before anything is compiled."""

import dataclasses
from collections.abc import Callable

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from semiseg_jax.contract import Batch, Facts, Method, TrainState
from semiseg_jax.input.build import train_streams
from semiseg_jax.input.pipeline import Stream
from semiseg_jax.input.sources import Dataset
from semiseg_jax.runtime.mesh import forms, make_mesh, sharing_devices
from semiseg_jax.training.check import check, check_size
from semiseg_jax.training.optimizers import make_optimizer, make_settings
from semiseg_jax.training.start import Start, make_start
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import Metrics, make_train_step, state_spec


@dataclasses.dataclass(frozen=True)
class Run:
  """The parts of a run. streams: what its batches are made of."""

  config: ConfigDict
  dataset: Dataset
  streams: dict[str, Stream]
  method: Method
  mesh: Mesh
  optimizer: optax.GradientTransformation
  start: Start
  facts: Facts

  @property
  def scored(self) -> str:
    """The name of the network that is evaluated and kept as the best."""
    return self.config.evaluation.network or self.method.scored

  def train_step(self) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The jitted step (`make_train_step`); the state comes back laid out as a fresh one."""
    state = jax.eval_shape(self.initial_state)
    laid = forms(state, state_spec(self.method, state), self.mesh)
    accumulate = self.config.training.accumulate
    return make_train_step(self.method, self.optimizer, self.mesh, accumulate, laid)

  def learning_rate(self, step: int) -> float:
    """Of a step, counted from 0; what parameter groups make of it is not in it."""
    schedule, settings = make_settings(self.config.optimizer)
    return float(schedule.rate(settings.learning_rate, self.config.training.steps, step))

  def initial_state(self, mesh: Mesh | None = None) -> TrainState:
    """See `make_state`."""
    return make_state(self.start, self.method, self.optimizer, self.facts, self.config.seed, mesh)


def build(
  config: ConfigDict, dataset: Dataset, domain: Dataset | None = None, mesh: Mesh | None = None
) -> Run:
  """Raises ValueError for hyper-parameters that don't fit together.

  domain: the second one, if it is not to be opened; mesh: default as many devices as divide the
  batches.
  """
  method = check(config)
  check_size(config, dataset.info)
  streams = train_streams(config, dataset, method.streams, domain)
  mesh = mesh or make_mesh(sharing_devices([stream.batch for stream in streams.values()]))
  start = make_start(config.model, dataset.info.num_classes, method, config.seed)
  networks = dict.fromkeys(method.trained, start.network)
  optimizer = make_optimizer(config.optimizer, config.training.steps, networks)
  facts = make_facts(config, dataset.info.num_classes, streams)
  return Run(config, dataset, streams, method, mesh, optimizer, start, facts)


def make_facts(config: ConfigDict, num_classes: int, streams: dict[str, Stream]) -> Facts:
  """What the method may know of the run."""
  images = {name: len(stream.source) for name, stream in streams.items()}
  rows = {name: stream.batch for name, stream in streams.items()}
  return Facts(
    num_classes,
    config.training.steps,
    images["labeled"],
    images.get("unlabeled", 0),
    rows["labeled"],
    rows.get("unlabeled", 0),
  )
