"""What a conversion shows of itself, without the original's code."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from semiseg_jax.convert.assign import (
  A_COUNTER,
  CLASS_MODULES,
  OTHER_CLASSES,
  Report,
  leaves_of,
  slots_of,
  tensor_at,
)
from semiseg_jax.convert.weights import Converted, Weights
from semiseg_jax.evaluation.decide import argmax_with_confidence
from semiseg_jax.evaluation.inference import whole

LIMITS = (
  "Not compared with the original's code, as tests do for the published layouts: two tensors of "
  "one shape in each other's place, or another stride or dilation, would not be seen here."
)
_SIZE, _BLOCK = (96, 128), 16  # of the picture, and of its squares
_SHOWN = 4  # names in a line

Leaves = Mapping[tuple[str, ...], np.ndarray]


class Finding(NamedTuple):
  """Whether something holds, and a line on what was looked at."""

  held: bool
  text: str


def findings(weights: Weights, done: Converted, class_names: Sequence[str]) -> Iterator[Finding]:
  """What became of every tensor, the way back, all numbers, and what the network says."""
  leaves = leaves_of(done.variables)
  yield _all_used(done.report)
  yield _all_filled(done.report)
  yield _way_back(weights, done, leaves)
  yield _numbers(leaves)
  yield _picture(done, class_names)


def _all_used(report: Report) -> Finding:
  useless = [key for key, _, why in report.left if why not in (A_COUNTER, OTHER_CLASSES)]
  if useless:
    return Finding(False, f"tensors of the file without use: {_some(useless)}")
  others = [key for key, _, why in report.left if why == OTHER_CLASSES]
  but = f", but for those {OTHER_CLASSES}: {_some(others)}" if others else ""
  return Finding(True, f"the file's tensors are all in use{but}")


def _all_filled(report: Report) -> Finding:
  fresh = [path for path, _ in report.fresh]
  if not fresh:
    return Finding(True, "the network's arrays all come from the file")
  asked = any(why == OTHER_CLASSES for *_, why in report.left)
  held = asked and all(path.split(".")[0] in CLASS_MODULES for path in fresh)
  return Finding(held, f"fresh arrays of the network: {_some(fresh)}")


def _way_back(weights: Weights, done: Converted, leaves: Leaves) -> Finding:
  slots = slots_of(weights.family, done.variables)
  keys = [key for key, *_ in done.report.taken]
  back = {key: tensor_at(leaves, slots[key]) for key in keys}
  changed = [key for key in keys if not _same_bits(back[key], weights.tensors[key])]
  if changed:
    return Finding(False, f"tensors that come back changed: {_some(changed)}")
  return Finding(True, f"{len(keys)} tensors come back bit for bit")


def _numbers(leaves: Leaves) -> Finding:
  bad = [path for path, x in leaves.items() if not np.isfinite(x).all()]
  bad += [path for path, x in leaves.items() if path[-1] == "var" and (x < 0).any()]
  if bad:
    names = [".".join(path[1:]) for path in bad]
    return Finding(False, f"infinities, NaN or a negative variance in: {_some(names)}")
  modules = dict.fromkeys(path[1] for path in leaves if path[0] == "params")
  sizes = ", ".join(f"{module} {_root_mean_square(leaves, module):.2g}" for module in modules)
  return Finding(True, f"all numbers are finite; root mean square of the parameters: {sizes}")


def _root_mean_square(leaves: Leaves, module: str) -> float:
  arrays = [x for path, x in leaves.items() if path[:2] == ("params", module)]
  squares = sum(np.square(x, dtype=np.float64).sum() for x in arrays)
  return float(np.sqrt(squares / sum(x.size for x in arrays)))


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
  shape = "x".join(map(str, logits.shape[1:]))
  if not np.isfinite(logits).all():
    return Finding(False, f"a made-up picture gives logits {shape} that are not all finite")
  shares = np.bincount(label.ravel(), minlength=len(class_names)) / label.size
  first = np.argsort(-shares, kind="stable")[:_SHOWN]
  found = ", ".join(f"{class_names[c]} {shares[c]:.0%}" for c in first if shares[c])
  text = f"a made-up picture gives finite logits {shape}: {found}; mean confidence"
  return Finding(True, f"{text} {confidence.mean():.2f}")


def _same_bits(left: np.ndarray, right: np.ndarray) -> bool:
  same = (left.shape, left.dtype) == (right.shape, right.dtype)
  return same and left.tobytes() == right.tobytes()


def _some(names: Sequence[str]) -> str:
  more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
  return ", ".join(names[:_SHOWN]) + more
