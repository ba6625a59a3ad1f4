"""Scores of a network over a whole set of images, every image once."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from semiseg_jax.collectives import DATA_AXIS, psum
from semiseg_jax.contract import Batch, Tree
from semiseg_jax.evaluation.decide import argmax
from semiseg_jax.evaluation.metrics import Scores, confusion_matrix, scores
from semiseg_jax.evaluation.windows import seen
from semiseg_jax.losses.pixel import cross_entropy
from semiseg_jax.models.network import Network, Size, Variables

T = TypeVar("T")

_IN_FLIGHT = 2  # batches given to the devices before the host waits for the first of them


class Counts(NamedTuple):
  """What one global batch adds: int32 [K,K], and the float32 sum of its pixels' cross-entropy."""

  confusion: jax.Array
  loss_sum: jax.Array


def make_evaluate_step(
  network: Network, num_classes: int, mesh: Mesh, window: Size | None = None
) -> Callable[[Tree, Tree, Batch], Counts]:
  """The jitted step(params, batch_stats, batch) -> Counts, summed over the devices of mesh.

  batch: {"image" uint8 [B,H,W,3], "label" uint8 [B,H,W]}, rows over "data"; labels may be finer
  than images. Logits on the labels' grid are decided by argmax (ReCo, section "Evaluation").
  window: see `windows.seen`.
  """

  def per_device(params: Tree, batch_stats: Tree, batch: Batch) -> Counts:
    labels = batch["label"].astype(jnp.int32)
    logits = seen(network, Variables(params, batch_stats), batch["image"], labels.shape[1:], window)
    return psum(count(logits, labels, num_classes), DATA_AXIS)

  rows = P(DATA_AXIS)
  return jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=(P(), P(), rows), out_specs=P()))


def count(logits: jax.Array, labels: jax.Array, num_classes: int) -> Counts:
  """The counts of logits [B,H,W,K] and labels int32 [B,H,W] of one device."""
  confusion = confusion_matrix(argmax(logits), labels, num_classes)
  # what is no class has no part in the confusion either
  known = jnp.where(labels < num_classes, cross_entropy(logits, labels), 0)
  return Counts(confusion, known.sum())


def evaluate(
  step: Callable[[Tree, Tree, Batch], Counts],
  params: Tree,
  batch_stats: Tree,
  batches: Iterable[Batch],
  put: Callable[[Batch], Batch],
) -> tuple[Scores, float]:
  """(scores, mean cross-entropy over the labelled pixels) of all batches.

  batches: this host's rows as numpy arrays; filler rows and margins carry IGNORE. put lays them
  over the mesh. The devices never wait for the host. Raises ValueError if there is no batch.
  """
  shown = ({"image": batch["image"], "label": batch["label"]} for batch in batches)
  return summed(run_over(step, params, batch_stats, shown, put))


def run_over(
  step: Callable[[Tree, Tree, Batch], T],
  params: Tree,
  batch_stats: Tree,
  batches: Iterable[Batch],
  put: Callable[[Batch], Batch],
) -> list[T]:
  """What step(params, batch_stats, put(batch)) says of every batch, on the host."""
  found: list[T] = []
  for batch in batches:
    if len(found) >= _IN_FLIGHT:  # bounds the memory that waiting batches take
      jax.block_until_ready(found[-_IN_FLIGHT])
    found.append(step(params, batch_stats, put(batch)))
  if not found:
    raise ValueError("there is no image to evaluate: the validation set is empty")
  return jax.device_get(found)


def summed(counts: Sequence[Counts]) -> tuple[Scores, float]:
  """What `evaluate` says of the counts of all batches."""
  confusion = sum(count.confusion.astype(np.int64) for count in counts)
  pixels = int(confusion.sum())
  loss = sum(float(count.loss_sum) for count in counts)
  return scores(confusion), loss / pixels if pixels else float("nan")
