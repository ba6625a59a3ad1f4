"""A config, or a whole run of launch.py, as a command line makes it, within this process."""

import pathlib
import sys
from unittest import mock

from absl import flags
from ml_collections import ConfigDict

import launch
from semiseg_jax.commands.flags import define_config

ROOT = pathlib.Path(__file__).parents[1]


def parsed(config: str, *options: str) -> ConfigDict:
  """--config=configs/CONFIG with further options, such as parsed("toy_reco.py:labels=4")."""
  argv = ["launch.py", f"--config={ROOT / 'configs' / config}", *options]
  values = flags.FlagValues()
  with mock.patch.object(sys, "argv", argv):
    define_config(values)
    values(argv)
  return values.config


def launched(*options: str) -> int:
  """The exit code of launch.py with these flags."""
  argv = ["launch.py", *options]
  values = flags.FlagValues()
  with mock.patch.object(sys, "argv", argv):
    launch.define_flags(values)
    return launch.main(values(argv), values)
