"""What a conversion shows of itself, without the original's code."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from semiseg_jax.convert.assign import (
  A_COPY,
  A_COUNTER,
  CLASS_MODULES,
  OTHER_CLASSES,
  Report,
  leaves_of,
  slots_of,
  tensor_at,
)
from semiseg_jax.convert.weights import Converted, Weights, some
from semiseg_jax.evaluation.decide import argmax_with_confidence
from semiseg_jax.evaluation.inference import whole
from semiseg_jax.models.network import Tree, Variables

LIMITS = (
  "Not compared with the original's code, as tests do for the published layouts: two tensors of "
  "one shape in each other's place, or another stride or dilation, would not be seen here."
)
_SIZE, _BLOCK = (96, 128), 16  # of the picture, and of its squares
_SHOWN = 4  # names in a line


class Finding(NamedTuple):
  """Whether something holds, and a line on what was looked at."""

  held: bool
  text: str


def findings(weights: Weights, done: Converted, class_names: Sequence[str]) -> Iterator[Finding]:
  """What became of every tensor, the way back, all numbers, and what the network says."""
  yield _all_used(done.report)
  yield _all_filled(done.report)
  yield _way_back(weights, done)
  yield _numbers(done.variables)
  yield _picture(done, class_names)


def _all_used(report: Report) -> Finding:
  fine = (A_COUNTER, A_COPY, OTHER_CLASSES)
  useless = [key for key, _, why in report.left if why not in fine]
  if useless:
    return Finding(False, f"tensors of the file without use: {some(useless)}")
  others = [key for key, _, why in report.left if why == OTHER_CLASSES]
  but = f", but for those {OTHER_CLASSES}: {some(others)}" if others else ""
  return Finding(True, f"the file's tensors are all in use{but}")


def _all_filled(report: Report) -> Finding:
  fresh = [path for path, _ in report.fresh]
  if not fresh:
    return Finding(True, "the network's arrays all come from the file")
  asked = any(why == OTHER_CLASSES for *_, why in report.left)
  held = asked and all(path.split(".")[0] in CLASS_MODULES for path in fresh)
  return Finding(held, f"fresh arrays of the network: {some(fresh)}")


def _way_back(weights: Weights, done: Converted) -> Finding:
  slots, leaves = slots_of(weights.family, done.variables), leaves_of(done.variables)
  changed = []
  for key, *_ in done.report.taken:
    there, back = weights.tensors[key], tensor_at(leaves, slots[key])
    if there.dtype != back.dtype or there.tobytes() != back.tobytes():
      changed.append(key)
  if changed:
    return Finding(False, f"tensors that come back changed: {some(changed)}")
  return Finding(True, f"{len(done.report.taken)} tensors come back bit for bit")


def _numbers(variables: Variables) -> Finding:
  bad = [
    ".".join(path[1:])
    for path, x in leaves_of(variables).items()
    if not np.isfinite(x).all() or (path[-1] == "var" and (x < 0).any())
  ]
  if bad:
    return Finding(False, f"infinities, NaN or a negative variance in: {some(bad)}")
  sizes = (f"{name} {_root_mean_square(tree):.2g}" for name, tree in variables.params.items())
  found = ", ".join(sizes)
  return Finding(True, f"all numbers are finite; root mean square of the parameters: {found}")


def _root_mean_square(tree: Tree) -> float:
  arrays = jax.tree.leaves(tree)
  return np.linalg.norm([np.linalg.norm(x) for x in arrays]) / sum(x.size for x in arrays) ** 0.5


def _picture(done: Converted, class_names: Sequence[str]) -> Finding:
  """Squares of random colours, always the same."""
  blocks = [side // _BLOCK for side in _SIZE]
  colors = np.random.default_rng(0).integers(0, 256, (1, *blocks, 3), np.uint8)
  image = colors.repeat(_BLOCK, 1).repeat(_BLOCK, 2)

  @jax.jit
  def run(variables, image):
    logits = whole(done.network, variables, image)
    return logits, argmax_with_confidence(logits)

  logits, (label, confidence) = jax.device_get(run(done.variables, image))
  if not np.isfinite(logits).all():
    return Finding(False, "a made-up picture gives logits that are not all finite")
  shape = "x".join(map(str, logits.shape[1:]))
  shares = np.bincount(label.ravel(), minlength=len(class_names)) / label.size
  first = np.argsort(-shares, kind="stable")[:_SHOWN]
  found = ", ".join(f"{class_names[c]} {shares[c]:.0%}" for c in first if shares[c])
  text = f"a made-up picture gives finite logits {shape}: {found}; mean confidence"
  return Finding(True, f"{text} {confidence.mean():.2f}")
