"""Inputs and outputs of the original code bases, one folder for each.

A test takes every vector that there is of its kind, and from the vector all that it needs to know,
so that vectors of other settings and names may be laid beside these.
"""

import fnmatch
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from semiseg_jax.labels import IGNORE

FOLDER = pathlib.Path(__file__).parent

Vector = dict[str, np.ndarray]


def cases(pattern: str, holding: str = "*") -> pytest.MarkDecorator:
  """Parametrises a test over `vectors`."""
  found = vectors(pattern, holding)
  return pytest.mark.parametrize("case", found.values(), ids=found)


def vectors(pattern: str, holding: str = "*") -> dict[str, Vector]:
  """Every vector whose path matches, such as "reco/sup_loss*", by its name without the folder.

  holding: only those with an array whose name matches this.
  """
  found = {path.stem: load(path.with_suffix("")) for path in sorted(FOLDER.glob(f"{pattern}.npz"))}
  found = {name: case for name, case in found.items() if fnmatch.filter(case, holding)}
  assert found, f"no golden vector matches {pattern} and holds {holding}"
  return found


def load(path: str | pathlib.Path) -> Vector:
  """One vector, such as "reco/metrics_a", as a dict of arrays."""
  with np.load(FOLDER / f"{path}.npz", allow_pickle=False) as file:
    return dict(file)


def load_json(path: str) -> Any:
  """What a file beside the vectors says, such as "reco/deeplabv2_19.manifest.json"."""
  return json.loads((FOLDER / path).read_text())


def nhwc(array: np.ndarray) -> np.ndarray:
  """The originals' [..., C, H, W] as [..., H, W, C]."""
  return np.moveaxis(array, -3, -1)


def known(labels: np.ndarray, ignore_label: int | np.ndarray = -1) -> np.ndarray:
  """The originals' labels as ours, int32: IGNORE for theirs and for all that are negative."""
  return np.where((labels < 0) | (labels == ignore_label), IGNORE, labels).astype(np.int32)


def denormalised(normalised: np.ndarray, levels: np.ndarray) -> np.ndarray:
  """Normalised values [..., C] as levels, by the mean and deviation of each channel that fit best.

  levels: what they are from, to within rounding.
  """
  fit = lambda x, y: np.polyval(np.polyfit(x.ravel(), y.ravel(), 1), x)
  channels = range(normalised.shape[-1])
  return np.stack([fit(normalised[..., c], np.float64(levels[..., c])) for c in channels], -1)
