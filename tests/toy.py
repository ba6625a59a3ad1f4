"""The toy scenes as all tests share them, so few that preparing and scoring them takes seconds."""

import pathlib
from unittest import mock

from data import prepare
from data.toy_scenes import builder
from tests.environment import data_directory

NUM_IMAGES = {"train": 60, "val": 20}


def prepared_scenes() -> pathlib.Path:
  """The directory to read them from."""
  with mock.patch.object(builder.Builder, "NUM_IMAGES", NUM_IMAGES):
    prepare.ensure("toy_scenes", None, data_directory())
  return data_directory()
