"""All that can be said of a network's masks on a set, in one pass: `--mode=evaluate`.

Training scores its networks by `evaluate` alone, which counts less and so costs less.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from semiseg_jax.collectives import DATA_AXIS, psum
from semiseg_jax.contract import Batch, Tree
from semiseg_jax.evaluation import boundary
from semiseg_jax.evaluation.boundary import BoundaryCounts, count_boundaries
from semiseg_jax.evaluation.decide import Rule
from semiseg_jax.evaluation.evaluate import Counts, count, run_over, summed
from semiseg_jax.evaluation.image_counts import ImageCounts, count_masks, inside_of
from semiseg_jax.evaluation.metrics import Scores
from semiseg_jax.evaluation.windows import seen
from semiseg_jax.models.network import Network, Size, Variables


class Survey(NamedTuple):
  """scores, loss: of `evaluate`, decided by argmax whatever the rule; the others are of its masks.

  rows: int [N], which images of the set stand in the counts, in the order of the batches.
  confusion: int64 [K,K+1], see `count_masks`.
  """

  scores: Scores
  loss: float
  rows: np.ndarray
  counts: ImageCounts
  boundaries: BoundaryCounts
  confusion: np.ndarray


class Found(NamedTuple):
  """What one global batch adds, equal on all devices."""

  usual: Counts
  index: jax.Array
  counts: ImageCounts
  boundaries: BoundaryCounts
  confusion: jax.Array


def make_survey_step(
  network: Network,
  num_classes: int,
  rule: Rule,
  mesh: Mesh,
  boundary_ratio: float = 0.02,
  window: Size | None = None,
) -> Callable[[Tree, Tree, Batch], Found]:
  """The jitted step(params, batch_stats, batch) -> Found, of a batch of `surveyed`.

  boundary_ratio: see `boundary.radius`; with 0 nothing is counted there. window: see `seen`.
  """

  def per_device(params: Tree, batch_stats: Tree, batch: Batch) -> tuple:
    labels = batch["label"].astype(jnp.int32)
    size = labels.shape[1:]
    logits = seen(network, Variables(params, batch_stats), batch["image"], size, window)
    sizes = batch["image"].shape[1:3], size
    inside = inside_of(batch["valid_size"], batch["index"], *sizes)
    masks = rule(logits, inside)
    counts, confusion = count_masks(masks, labels, inside)
    boundaries = BoundaryCounts(*[jnp.zeros_like(counts.hits)] * 2)
    if boundary_ratio:
      most = int(boundary.radius(np.asarray(size), boundary_ratio))
      boundaries = count_boundaries(masks, labels, inside, batch["near"], most)
    sums = psum((count(logits, labels, num_classes), confusion), DATA_AXIS)
    return sums, (batch["index"], counts, boundaries)

  def step(params: Tree, batch_stats: Tree, batch: Batch) -> Found:
    (usual, confusion), own = mapped(params, batch_stats, batch)
    return Found(usual, *own, confusion)

  rows = P(DATA_AXIS)
  # unchecked: a rule is written for whole arrays, and its loops don't say what differs by device
  mapped = jax.shard_map(
    per_device, mesh=mesh, in_specs=(P(), P(), rows), out_specs=(P(), rows), check_vma=False
  )
  # every host reads the counts of all images
  return jax.jit(step, out_shardings=NamedSharding(mesh, P()))


def surveyed(batches: Iterable[Batch], boundary_ratio: float) -> Iterator[Batch]:
  """What the step reads of batches of `EvalBatches`, and how near an outline is in each image."""
  for batch in batches:
    finer = batch["label"].shape[1] // batch["image"].shape[1]
    near = boundary.radius(batch["valid_size"] * finer, boundary_ratio)
    names = ("image", "label", "valid_size", "index")
    yield {**{name: batch[name] for name in names}, "near": near}


def survey(
  step: Callable[[Tree, Tree, Batch], Found],
  params: Tree,
  batch_stats: Tree,
  batches: Iterable[Batch],
  put: Callable[[Batch], Batch],
  boundary_ratio: float = 0.02,
) -> Survey:
  """The survey of all batches, with a step of the same ratio; see `evaluate`."""
  shown = surveyed(batches, boundary_ratio)
  found = run_over(step, params, batch_stats, shown, put)
  usual, *_, confusion = zip(*found, strict=True)
  rows, counts, boundaries = jax.tree.map(
    lambda *parts: np.concatenate(parts), *((x.index, x.counts, x.boundaries) for x in found)
  )
  counts, boundaries = jax.tree.map(lambda x: x[rows >= 0], (counts, boundaries))
  return Survey(
    *summed(usual),
    rows=rows[rows >= 0],
    counts=counts,
    boundaries=boundaries,
    confusion=sum(x.astype(np.int64) for x in confusion),
  )
