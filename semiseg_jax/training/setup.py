"""From a config to everything that a run needs, checked before anything is compiled."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from semiseg_jax.contract import Batch, Facts, Method, Network, TrainState, Variables
from semiseg_jax.convert.assign import assign
from semiseg_jax.convert.checkpoint import open_weights
from semiseg_jax.convert.report import summary
from semiseg_jax.convert.weights import Weights
from semiseg_jax.input.build import train_streams
from semiseg_jax.input.pipeline import Stream
from semiseg_jax.input.sources import Dataset, DatasetInfo
from semiseg_jax.methods import make_method
from semiseg_jax.runtime.mesh import check_divisible, make_mesh
from semiseg_jax.training.network import describe_model, make_network
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.training.step import Metrics, make_train_step


@dataclasses.dataclass(frozen=True)
class Run:
  """The parts of a run.

  streams: what its batches are made of. model: the description of its network, forward. start:
  where the variables come from, for people.
  """

  config: ConfigDict
  dataset: Dataset
  streams: dict[str, Stream]
  method: Method
  mesh: Mesh
  optimizer: optax.GradientTransformation
  model: dict[str, Any]
  forward: Network
  variables: Variables
  start: str
  facts: Facts

  def train_step(self) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The jitted step of this run (`make_train_step`)."""
    training = self.config.training
    return make_train_step(
      self.method, self.optimizer, self.mesh, training.accumulate, training.separate_passes
    )


def build(
  config: ConfigDict, dataset: Dataset, domain: Dataset | None = None, mesh: Mesh | None = None
) -> Run:
  """Raises ValueError for hyper-parameters that don't fit together or the devices there are.

  domain: the second one, if it is not to be opened; mesh: default all devices.
  """
  method = make_method(config.method)
  check(config, method)
  check_size(config, dataset.info)
  mesh = mesh or make_mesh()
  batches = {"data.labeled_batch": config.data.labeled_batch}
  if method.uses_unlabeled:
    batches["data.unlabeled_batch"] = config.data.unlabeled_batch
  if config.data.domain.name:
    batches["data.domain.batch"] = config.data.domain.batch
  check_divisible(mesh, **batches)
  streams = train_streams(config, dataset, method.uses_unlabeled, domain)
  facts = make_facts(config, dataset.info.num_classes, streams)
  optimizer = make_optimizer(config.optimizer, config.training.steps)
  weights = open_weights(config.model.init_from) if config.model.init_from else None
  described = (dataset.info.num_classes, method, default_normalization(config.model, weights))
  model = describe_model(config.model, *described)
  variables, forward = make_network(config, *described)
  start = "from scratch"
  if weights:
    variables, start = start_from(weights, variables, model, config.model.reinit_classifier)
  return Run(
    config, dataset, streams, method, mesh, optimizer, model, forward, variables, start, facts
  )


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
    config.model.head_dim,
  )


def check(config: ConfigDict, method: Method) -> None:
  """ValueError for values that contradict each other."""
  if config.model.name == "resnet":
    raise ValueError(
      "config.model.name='resnet' classifies whole images: take a DeepLab, whose trunk can start "
      "from its weights by config.model.init_from"
    )
  sparse = bool(config.data.partial)
  if method.uses_unlabeled and method.partial != sparse:
    raise ValueError(
      f"config.data.partial={config.data.partial!r} but config.method.partial={method.partial}: "
      "sparse labels need both"
    )
  for section, key in (("training", "steps"), ("training", "log_every"), ("training", "keep"),
                       ("training", "checkpoint_every"), ("training", "accumulate"),
                       ("evaluation", "every"), ("data", "labeled_batch")):  # fmt: skip
    if config[section][key] < 1:
      raise ValueError(f"config.{section}.{key}={config[section][key]} must be at least 1")
  labeled, domain = config.data.labeled_batch, config.data.domain
  if domain.name and method.domain_replaces and domain.batch != labeled:
    raise ValueError(
      f"config.data.domain.batch={domain.batch} but config.data.labeled_batch={labeled}: "
      f"{config.method.name!r} takes either batch at a step, so give both the same size"
    )
  if domain.name and method.domain_replaces and method.alternate:
    raise ValueError(
      f"config.data.domain.name={domain.name!r} with config.method.alternate=True: its batches "
      "would fall on steps that learn from no labels; leave out one of the two"
    )
  if config.training.separate_passes and (not method.passes or method.alternate):
    raise ValueError(
      f"config.training.separate_passes=True: with this config.method ({config.method.name!r}) "
      "a step can't be taken apart into passes; set it to False"
    )
  if config.evaluation.network not in ("teacher", "student"):
    raise ValueError(
      f"config.evaluation.network={config.evaluation.network!r}: choose from teacher, student"
    )


def check_size(config: ConfigDict, info: DatasetInfo) -> None:
  """ValueError unless every validation image fits into the size that it will be padded to."""
  size = config.evaluation.size
  if size is None and info.size is None:
    raise ValueError(f"config.evaluation.size must be given: {info.name} doesn't say its own")
  if None not in (size, info.size) and (info.size[0] > size[0] or info.size[1] > size[1]):
    raise ValueError(
      f"the evaluation size {size[0]}x{size[1]} (config.evaluation.size, height x width) is "
      f"smaller than the images of {info.name}, {info.size[0]}x{info.size[1]}"
    )


def default_normalization(model: ConfigDict, weights: Weights | None) -> str:
  """What "auto" means: as the weights were trained; ValueError if they don't say how."""
  if weights is None:
    return "imagenet"
  own = weights.model["normalization"]
  if own is None and model.normalization == "auto":
    raise ValueError(
      f"config.model.init_from={model.init_from!r} doesn't say how its inputs were normalised: "
      "give config.model.normalization"
    )
  return own


def start_from(
  weights: Weights, variables: Variables, model: Mapping[str, Any], reinit_classifier: bool
) -> tuple[Variables, str]:
  """The network with the weights that it can take, and a line on what was taken."""
  try:
    variables, report = assign(
      weights.family, weights.tensors, variables, reinit_classifier=reinit_classifier
    )
  except ValueError as error:
    hint = str(error).replace("reinit_classifier", "config.model.reinit_classifier=True")
    raise ValueError(f"config.model.init_from: {hint}") from error
  text = f"weights of {weights.about['origin']['file']}, {weights.family.title}: {summary(report)}"
  own = weights.model["normalization"]
  if own != model["normalization"]:
    text += f"; its inputs were normalised as {own or 'unknown'}, here as {model['normalization']}"
  return variables, text


def evaluated_network(config: ConfigDict, method: Method) -> str:
  """Which network is evaluated and kept as the best: the teacher only where there is one."""
  return "teacher" if config.evaluation.network == "teacher" and method.uses_teacher else "student"
