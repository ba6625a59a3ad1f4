"""The flag --config of every command that takes one."""

import re
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from semiseg_jax.training.choices import CHOICES, choose


def define_config() -> flags.FlagHolder:
  """--config=FILE.py[:ARGUMENTS], and --config.KEY=VALUE for every key of it.

  Naming another method, network, transform or optimiser there brings that one's keys.
  """
  holder = config_flags.DEFINE_config_file("config", None, "The experiment, FILE.py[:ARGUMENTS].")
  flag = flags.FLAGS["config"]
  flag.parser = _Choosing(flag.parser)
  return holder


class _Choosing(flags.ArgumentParser):
  """Makes the choices named on the command line before any key of theirs is looked for."""

  def __init__(self, parser: flags.ArgumentParser):
    self._parser = parser

  def parse(self, path: str) -> ConfigDict:
    config = self._parser.parse(path)
    for choice in CHOICES:
      if name := _given(f"{choice}.name"):
        choose(config, choice, name)
    return config

  def flag_type(self) -> str:
    return self._parser.flag_type()


def _given(key: str) -> str | None:
  """The last value of --config.KEY on the command line."""
  text = "\n".join(sys.argv[1:])
  found = re.findall(rf"^--?config\.{re.escape(key)}[=\n](.*)$", text, re.MULTILINE)
  return found[-1] if found else None
