"""The toy scenes as all tests share them, so few that preparing and scoring them takes seconds."""

import pathlib
from unittest import mock

import cv2
import numpy as np

from data import prepare
from data.toy_scenes import builder
from tests.environment import data_directory

NUM_IMAGES = {"train": 60, "val": 20}


def prepared_scenes() -> pathlib.Path:
  """The directory to read them from."""
  with mock.patch.object(builder.Builder, "NUM_IMAGES", NUM_IMAGES):
    prepare.ensure("toy_scenes", None, data_directory())
  return data_directory()


def make_folder(root: pathlib.Path) -> None:
  """Six pictures of sky above a road, four with masks, as somebody's own data."""
  rng = np.random.default_rng(0)
  for folder in ("images", "masks"):
    (root / folder).mkdir(parents=True)
  (root / "dataset.toml").write_text('class_names = ["sky", "road"]\n')
  for number in range(6):
    label = np.zeros((40, 48), np.uint8)
    label[rng.integers(10, 30) :] = 1
    image = label[..., None] * 100 + rng.integers(0, 100, (40, 48, 3), np.uint8)
    cv2.imwrite(str(root / "images" / f"{number}.png"), image)
    if number < 4:
      cv2.imwrite(str(root / "masks" / f"{number}.png"), label)
