"""From a config to everything that a run needs, checked before anything is compiled."""

import dataclasses
from collections.abc import Callable

import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from semiseg_jax.contract import Batch, Facts, Method, TrainState
from semiseg_jax.fields import require
from semiseg_jax.input.build import train_streams
from semiseg_jax.input.pipeline import Stream
from semiseg_jax.input.sources import Dataset, DatasetInfo
from semiseg_jax.methods import make_method
from semiseg_jax.networks import NETWORKS
from semiseg_jax.runtime.mesh import make_mesh, sharing_devices
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.training.selection import MONITORS
from semiseg_jax.training.start import Start, make_start
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import Metrics, make_train_step


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
    """The jitted step (`make_train_step`)."""
    return make_train_step(self.method, self.optimizer, self.mesh, self.config.training.accumulate)

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
  method = make_method(config.method)
  check(config, method)
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


def check(config: ConfigDict, method: Method) -> None:
  """ValueError for values that contradict each other."""
  if NETWORKS[config.model.name].OF_IMAGES:
    raise ValueError(
      f"config.model.name={config.model.name!r} classifies whole images: take a DeepLab, "
      "or another network, whose trunk can start from its weights by config.model.init_from"
    )
  method.check(config)
  for section, key in (("training", "steps"), ("training", "log_every"), ("training", "keep"),
                       ("training", "checkpoint_every"), ("training", "accumulate"),
                       ("evaluation", "every"), ("data", "labeled_batch")):  # fmt: skip
    if config[section][key] < 1:
      raise ValueError(f"config.{section}.{key}={config[section][key]} must be at least 1")
  require("config.evaluation.monitor", config.evaluation.monitor, MONITORS)
  if None not in (config.training.stop_after, config.training.reload_best_after):
    raise ValueError(
      "config.training.stop_after and reload_best_after both wait for a better score: set one"
    )
  if config.evaluation.network is not None:
    require("config.evaluation.network", config.evaluation.network, method.networks)


def check_size(config: ConfigDict, info: DatasetInfo) -> None:
  """ValueError unless every validation image fits into the size that it will be padded to."""
  if config.evaluation.own_size:
    return
  size = config.evaluation.size
  if size is None and info.size is None:
    raise ValueError(f"config.evaluation.size must be given: {info.name} doesn't say its own")
  if None not in (size, info.size) and (info.size[0] > size[0] or info.size[1] > size[1]):
    raise ValueError(
      f"the evaluation size {size[0]}x{size[1]} (config.evaluation.size, height x width) is "
      f"smaller than the images of {info.name}, {info.size[0]}x{info.size[1]}"
    )
