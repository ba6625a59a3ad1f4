"""From a config to everything that a run needs, checked before anything is compiled."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from semiseg_jax import fields
from semiseg_jax.augment.levels import NORMALIZATIONS
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Facts, Method, Network, Variables, split_network
from semiseg_jax.input.build import train_streams
from semiseg_jax.input.pipeline import Stream
from semiseg_jax.input.sources import Dataset, DatasetInfo
from semiseg_jax.methods import make_method
from semiseg_jax.models import networks
from semiseg_jax.training.mesh import check_divisible, make_mesh
from semiseg_jax.training.optimizers import make_optimizer


@dataclasses.dataclass(frozen=True)
class Run:
  """The parts of a run. forward is the network, streams what its batches are made of."""

  config: ConfigDict
  dataset: Dataset
  streams: dict[str, Stream]
  method: Method
  mesh: Mesh
  optimizer: optax.GradientTransformation
  forward: Network
  variables: Variables
  facts: Facts


def build(config: ConfigDict, dataset: Dataset) -> Run:
  """Raises ValueError for hyper-parameters that don't fit together or the devices there are."""
  method = make_method(config.method)
  check(config, method)
  check_size(config, dataset.info)
  mesh = make_mesh()
  batches = {"data.labeled_batch": config.data.labeled_batch}
  if method.uses_unlabeled:
    batches["data.unlabeled_batch"] = config.data.unlabeled_batch
  if config.data.source.name:
    batches["data.source.batch"] = config.data.source.batch
  check_divisible(mesh, **batches, **{"evaluation.batch": config.evaluation.batch})
  streams = train_streams(config, dataset, method.uses_unlabeled)
  facts = make_facts(config, dataset.info.num_classes, streams)
  variables, forward = make_network(config, dataset.info.num_classes, method)
  optimizer = make_optimizer(config.optimizer, config.training.steps)
  return Run(config, dataset, streams, method, mesh, optimizer, forward, variables, facts)


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
  if config.training.separate_passes and not method.passes:
    raise ValueError(
      f"config.training.separate_passes: the losses of {config.method.name!r} can't be taken apart"
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


def make_network(config: ConfigDict, num_classes: int, method: Method) -> tuple[Variables, Network]:
  """The network of config.model with fresh parameters on the host.

  Without a method that uses them there are no further heads, so nothing decays them.
  """
  model = config.model
  module = networks.create(
    model.name,
    num_classes=num_classes,
    backbone=model.backbone,
    width=model.width,
    decoder_dim=model.decoder_dim,
    output_stride=model.output_stride,
    embedding_dim=model.embedding_dim if method.uses_embedding else None,
    head_dim=model.head_dim if method.uses_row_heads else None,
    classifier_branches=model.classifier_branches,
    dtype=compute_dtype(model.dtype),
    axis_name=DATA_AXIS if model.sync_batch_norm else None,
    remat=model.remat,
    seed=config.seed,
  )
  if model.normalization not in NORMALIZATIONS:
    raise ValueError(
      f"config.model.normalization={model.normalization!r}: "
      f"{fields.nearest(model.normalization, NORMALIZATIONS)}"
    )
  return split_network(module, NORMALIZATIONS[model.normalization])


def compute_dtype(name: str) -> jnp.dtype:
  """float32, bfloat16, or for "auto" bfloat16 on accelerators and float32 on the CPU."""
  allowed = ("auto", "float32", "bfloat16")
  if name not in allowed:
    raise ValueError(f"config.model.dtype={name!r}: choose from {', '.join(allowed)}")
  if name == "auto":
    name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  return jnp.dtype(name)


def evaluated_network(config: ConfigDict, method: Method) -> str:
  """Which network is evaluated and kept as the best: the teacher only where there is one."""
  return "teacher" if config.evaluation.network == "teacher" and method.uses_teacher else "student"
