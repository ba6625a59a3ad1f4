"""The flag --config of every command that takes one, and paths on the command line."""

import argparse
import difflib
import os
import pathlib
import re
import sys

from absl import flags
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict, FieldReference, config_flags
from ml_collections.config_dict import placeholder
from ml_collections.config_flags import config_path

from semiseg_jax.paths import local_path
from semiseg_jax.training.batch import scale_batch
from semiseg_jax.training.choices import CHOICES, choose
from semiseg_jax.values import are_different_names, split_names


def define_config(values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
  """--config=FILE.py[:ARGUMENTS], and --config.KEY=VALUE for every key of it.

  Naming another method, network, transform or optimiser there brings that one's keys. Among the
  arguments of every file may be batch=N, see `scale_batch`.
  """
  text = "The experiment, FILE.py[:ARGUMENTS]."
  holder = config_flags.DEFINE_config_file("config", None, text, values)
  flag = values["config"]
  flag.parser = _Choosing(flag.parser)
  return holder


def define_path(
  name: str, default: str | None, text: str, flag_values: flags.FlagValues = flags.FLAGS
) -> None:
  """A flag for a path, in which ~ is the home directory."""
  flags.DEFINE(_Path(), name, default, text, flag_values)


def here(text: str) -> pathlib.Path:
  """A path on this machine, for argparse."""
  try:
    return local_path(text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from error


def class_names(text: str) -> list[str]:
  """The names that commas stand between, for argparse."""
  if not are_different_names(text):
    raise argparse.ArgumentTypeError(f"{text!r} should be different names with commas between them")
  return split_names(text)


def parse_or_exit(argv: list[str]) -> list[str]:
  """For `app.run`: what is left of the arguments; ends with one line if a flag is wrong."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    sys.exit(
      f"{pathlib.Path(argv[0]).name}: {' '.join(str(error).split())}; --help lists all flags"
    )


class _Path(flags.ArgumentParser):
  def parse(self, text: str) -> str:
    return os.path.expanduser(text)


class _Choosing(flags.ArgumentParser):
  """Makes the choices named on the command line before any key of theirs is looked for, and scales
  the batch behind them."""

  def __init__(self, parser: flags.ArgumentParser):
    self._parser = parser

  def parse(self, path: str) -> ConfigDict:
    file, *arguments = re.split("[:,]", os.path.expanduser(path))
    batch = [text[6:] for text in arguments if text.startswith("batch=")]
    others = ",".join(text for text in arguments if not text.startswith("batch="))
    if not os.path.isfile(file):
      others = [str(other) for other in pathlib.Path(file).parent.glob("*.py")]
      raise ValueError(f"No such file: {file}{_meant(file, others)}")
    try:
      config = self._parser.parse(f"{file}:{others}" if others else file)
      for choice in CHOICES:
        if name := _given(f"{choice}.name"):
          choose(config, choice, name[-1])
      for labeled in batch:
        scale_batch(config, _whole(labeled))
      _check_keys(config)
      _let_none_be_typed(config)
    except (OSError, TypeError, ValueError) as error:  # the parser's has a traceback in its text
      raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error
    except Exception as error:  # whatever else the code of a file may raise
      raise ValueError(f"{file} is no config: {type(error).__name__}: {error}") from error
    return config

  def flag_type(self) -> str:
    return self._parser.flag_type()


def _meant(word: str, known: list[str]) -> str:
  return "".join(f"; did you mean {close}?" for close in difflib.get_close_matches(word, known, 1))


def _whole(text: str) -> int:
  """Of batch=N."""
  if not text.isdecimal():
    raise ValueError(f"batch={text} must be a whole number")
  return int(text)


def _given(key: str) -> list[str]:
  """The values of --config.KEY on the command line."""
  return _typed(rf"^--?config\.{re.escape(key)}[=\n](.*)$")


def _typed(pattern: str) -> list[str]:
  """What a pattern's group has on the command line, an argument a line."""
  return re.findall(pattern, "\n".join(sys.argv[1:]), re.MULTILINE)


def _check_keys(config: ConfigDict) -> None:
  """ValueError naming the nearest for a key on the command line that the config doesn't have."""
  known = list(flatten_dict(config.to_dict(preserve_field_references=True), sep="."))
  for key in _typed(r"^--?(?:no)?config\.([\w.]+)"):
    if not any(f"{name}.".startswith(f"{key}.") for name in known):
      close = [f"did you mean config.{name}?" for name in difflib.get_close_matches(key, known, 1)]
      raise ValueError(
        f"no key config.{key}: {[*close, 'semiseg_jax/training/sections.py has all'][0]}"
      )


def _let_none_be_typed(config: ConfigDict) -> None:
  """Makes a key that is given None one that takes any literal: its own parser takes no None.

  ValueError for a key that may not be None.
  """
  for key in _typed(r"^--?config\.([\w.]+)[=\n]None$"):
    path, _, name = key.rpartition(".")
    section = config_path.get_value(path, config) if path else config
    if not isinstance(dict(section.items(preserve_field_references=True))[name], FieldReference):
      raise ValueError(f"config.{key} cannot be None: it is {section[name]!r} if not given")
    with section.unlocked():
      del section[name]
      section[name] = placeholder(object)
