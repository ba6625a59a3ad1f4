"""Inputs and outputs of the original code bases, one folder for each."""

import pathlib

import numpy as np
import pytest

_ROOT = pathlib.Path(__file__).parent


def cases(pattern: str) -> pytest.MarkDecorator:
  """Parametrises a test over every vector whose path matches, such as "reco/sup_loss_*"."""
  paths = sorted(_ROOT.glob(f"{pattern}.npz"))
  assert paths, f"no golden vector matches {pattern}"
  return pytest.mark.parametrize(
    "case", [load(path) for path in paths], ids=[p.stem for p in paths]
  )


def load(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """One vector, such as "reco/metrics_a", as a dict of arrays."""
  with np.load((_ROOT / path).with_suffix(".npz"), allow_pickle=False) as file:
    return dict(file)


def nhwc(array: np.ndarray) -> np.ndarray:
  """The originals' [..., C, H, W] as [..., H, W, C]."""
  return np.moveaxis(array, -3, -1)
