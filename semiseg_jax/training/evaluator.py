"""Evaluation during and after training: scores over the validation set, and pictures of a few."""

import pathlib
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from semiseg_jax.contract import Batch, TrainState
from semiseg_jax.convert.checkpoint import trained_network
from semiseg_jax.evaluation.decide import Rule, argmax_with_confidence, read_rule
from semiseg_jax.evaluation.evaluate import evaluate, make_evaluate_step
from semiseg_jax.evaluation.inference import whole
from semiseg_jax.evaluation.metrics import Scores
from semiseg_jax.evaluation.pictures import panel
from semiseg_jax.evaluation.survey import Survey, make_survey_step, survey
from semiseg_jax.input.sources import Dataset
from semiseg_jax.models.network import Network, Size, Variables
from semiseg_jax.runtime.mesh import make_mesh, replicate, shard_batch
from semiseg_jax.training.setup import Run
from semiseg_jax.training.start import compute_dtype
from semiseg_jax.training.streams import validation_batches


class Evaluation(NamedTuple):
  """What one evaluation found, and how long it took in seconds."""

  scores: Scores
  loss: float
  seconds: float


def score(
  step: Callable, variables: Variables, config: ConfigDict, dataset: Dataset, mesh: Mesh
) -> Evaluation:
  """Evaluates variables, replicated over the mesh, with a step of `make_evaluate_step`."""
  start = time.monotonic()
  put = lambda batch: shard_batch(batch, mesh)
  scores, loss = evaluate(step, *variables, validation_batches(config, dataset, mesh), put)
  return Evaluation(scores, loss, time.monotonic() - start)


def score_saved(
  workdir: pathlib.Path, config: ConfigDict, dataset: Dataset
) -> tuple[Evaluation, dict[str, Any]]:
  """Evaluates the best network of a working directory on all devices; what it says of itself, too.

  Raises as `trained_network` does, and ValueError if another of its networks is asked for.
  """
  mesh = make_mesh()
  variables, network, about = _saved(workdir, config, dataset)
  step = make_evaluate_step(network, dataset.info.num_classes, mesh, window_of(config))
  return score(step, replicate(variables, mesh), config, dataset, mesh), about


def survey_saved(
  workdir: pathlib.Path, config: ConfigDict, dataset: Dataset, rule: Rule
) -> tuple[Survey, float, dict[str, Any]]:
  """The same with all that can be said of the masks that the rule makes, and the seconds it took.

  Raises as `score_saved` does.
  """
  variables, network, about = _saved(workdir, config, dataset)
  start, mesh = time.monotonic(), make_mesh()
  batches = validation_batches(config, dataset, mesh)
  found = survey_batches(
    network,
    variables,
    dataset.info.num_classes,
    batches,
    rule=rule,
    mesh=mesh,
    boundary_ratio=config.evaluation.boundary,
    window=window_of(config),
  )
  return found, time.monotonic() - start, about


def survey_batches(
  network: Network,
  variables: Variables,
  num_classes: int,
  batches: Iterable[Batch],
  *,
  rule: Rule,
  mesh: Mesh,
  boundary_ratio: float = 0.02,
  window: Size | None = None,
) -> Survey:
  """The survey of batches of `EvalBatches` on all devices of a mesh."""
  step = make_survey_step(network, num_classes, rule, mesh, boundary_ratio, window)
  put = lambda batch: shard_batch(batch, mesh)
  return survey(step, *replicate(variables, mesh), batches, put, boundary_ratio)


def window_of(config: ConfigDict) -> Size | None:
  """Of the windows through which config.evaluation sees images; None for whole ones."""
  window = config.evaluation.window
  return window and tuple(window)


def rule_of(config: ConfigDict) -> Rule:
  """What config.evaluation decides masks by; ValueError for what is none.

  Probabilities are sigmoids where the method's supervised loss is a binary one (as in rankseg's
  fork, whose losses of that kind have names that begin with BCE).
  """
  wanted, is_binary = config.evaluation, supervised_loss(config).startswith("bce")
  name, rank_dice = read_rule(wanted.decide)
  return Rule(name, is_binary, wanted.temperature, wanted.threshold, rank_dice)


def supervised_loss(config: ConfigDict) -> str:
  """As the config's method names it; cross-entropy for one that has no choice."""
  return config.method.get("supervised_loss", "ce")


def _saved(
  workdir: pathlib.Path, config: ConfigDict, dataset: Dataset
) -> tuple[Variables, Network, dict[str, Any]]:
  dtype, names = compute_dtype(config.model.dtype), dataset.info.class_names
  return trained_network(workdir, config.model, dtype, names, config.evaluation.network)


class Evaluator:
  """The compiled evaluation of the network of a run that is scored."""

  def __init__(self, run: Run):
    self._run = run
    classes, window = run.dataset.info.num_classes, window_of(run.config)
    self._step = make_evaluate_step(run.start.network, classes, run.mesh, window)
    self._predict = jax.jit(self._decided)
    self._shown = None

  def network(self, state: TrainState) -> Variables:
    """The variables that are evaluated."""
    return state.networks[self._run.scored]

  def __call__(self, variables: Variables) -> Evaluation:
    run = self._run
    return score(self._step, variables, run.config, run.dataset, run.mesh)

  def panels(self, variables: Variables) -> tuple[list[np.ndarray], list[str]]:
    """image | label | prediction | confidence of the first host's first validation images; ids.

    One image at a time on one device, so that their number needn't divide among the devices.
    """
    config, dataset = self._run.config, self._run.dataset
    colors = dataset.info.palette, dataset.info.class_names
    count = min(config.evaluation.panels, len(dataset.val))
    if not count or jax.process_index():
      return [], []
    if self._shown is None:
      self._shown = next(iter(validation_batches(config, dataset, self._run.mesh)))
    shown = self._shown
    finer = shown["label"].shape[1] // shown["image"].shape[1]
    local = jax.tree.map(lambda x: x.addressable_data(0), variables)
    panels, ids = [], []
    for row in range(min(count, len(shown["index"]))):
      height, width = shown["valid_size"][row]
      image, label = shown["image"][row], shown["label"][row, ::finer, ::finer]
      maps = image, label, *map(np.asarray, self._predict(local, image))
      panels.append(panel(*(x[:height, :width] for x in maps), *colors))
      ids.append(str(dataset.val.ids[shown["index"][row]]))
    return panels, ids

  def _decided(self, variables: Variables, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    return argmax_with_confidence(whole(self._run.start.network, variables, image[None])[0])

  def about(self) -> dict[str, Any]:
    """What a network's checkpoint says of itself: enough to predict with it."""
    info = self._run.dataset.info
    return {
      "network": self._run.scored,
      "model": self._run.start.model,
      "class_names": list(info.class_names),
      "palette": np.asarray(info.palette).tolist(),
    }
