"""Trains, evaluates, predicts, or plans what training will take.

    python launch.py --config=configs/toy_reco.py --workdir=runs/toy
    python launch.py --config=configs/toy_reco.py --workdir=runs/toy --mode=evaluate
    python launch.py --workdir=runs/toy --mode=predict --images=DIR
    python launch.py --config=configs/city_reco.py --mode=plan --topology=v5e:2x4

Run twice with the same workdir, it goes on where it stopped. Any value of the config can be changed
here: --config.training.steps=100. With -v=1 an error shows where it came from.

On several hosts start the same command on each (docs/scaling.md). The exit code is 0 at the end, 1
if something is wrong, and 75 for a run that was stopped or lost a host: start it again.
"""

import pathlib
import sys
import typing

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

if typing.TYPE_CHECKING:
  from semiseg_jax.input.sources import Dataset

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, FILE.py[:ARGUMENTS].")
_WORKDIR = flags.DEFINE_string("workdir", None, "Holds all of a run; default runs/NAME_OF_CONFIG.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate", "predict", "plan"], "What to do.")
_IMAGES = flags.DEFINE_string("images", None, "predict: the folder of pictures.")
_OVERLAYS = flags.DEFINE_bool("overlays", False, "predict: also the colours over each picture.")
_SKIP_BAD = flags.DEFINE_bool("skip_bad", False, "predict: leave out damaged pictures and go on.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of several.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many are started.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")
_PEER_TIMEOUT = flags.DEFINE_integer("peer_timeout", 300, "Seconds to wait for a silent process.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "plan: the TPU slice, such as v5e:2x4.")
_SEARCH = flags.DEFINE_bool("search", False, "plan: also look for the largest batch that fits.")
_FULL_EFFORT = flags.DEFINE_bool("full_effort", False, "plan: compile as for a real run; slow.")
_OUT = flags.DEFINE_string("out", None, "predict: where to; default WORKDIR/predictions.")


def main(argv: list[str]) -> int:
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments {argv[1:]}; flags begin with --")
  from semiseg_jax.commands import run
  from semiseg_jax.training.loop import DivergedError

  if not logging.level_debug():
    logging.set_verbosity(logging.WARNING)  # the libraries report every file they touch

  config = _CONFIG.value
  if config is None and not (_MODE.value == "predict" and _WORKDIR.value):
    raise app.UsageError("--config is missing (only --mode=predict with --workdir needs none)")
  workdir = pathlib.Path(_WORKDIR.value or f"runs/{_config_name()}")
  try:
    if _MODE.value == "predict":
      options = {"overlays": _OVERLAYS.value, "skip_bad": _SKIP_BAD.value}
      run.predict(config, workdir, _IMAGES.value, _OUT.value, **options)
    elif _MODE.value == "plan":
      options = {"search": _SEARCH.value, "full_effort": _FULL_EFFORT.value}
      run.plan(config, _TOPOLOGY.value, *map(_known, (config.data, config.data.domain)), **options)
    else:
      return _train_or_evaluate(config, workdir)
  except (ValueError, FileNotFoundError, DivergedError) as error:
    if logging.level_debug():
      raise
    print(f"launch.py: {error}", file=sys.stderr)
    return 1
  return 0


def _train_or_evaluate(config: ConfigDict, workdir: pathlib.Path) -> int:
  """On all processes of the run; the exit code."""
  from data import prepare
  from semiseg_jax.commands import run
  from semiseg_jax.runtime import processes

  address = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  with processes.joined(*address, timeout=_PEER_TIMEOUT.value):
    for domain in (config.data, config.data.domain):
      if domain.name and domain.name != "folder":
        prepare.ensure(domain.name, domain.variant, config.data.data_dir)
    result = getattr(run, _MODE.value)(config, workdir)
  return processes.RETRY if result.get("status") == "interrupted" else 0


def _known(domain: ConfigDict) -> "Dataset | None":
  """What is known of a dataset without its files; None of a folder, and where there is none."""
  from data import blank, prepare

  if domain.name not in prepare.builder_names():
    return None
  height, width = _CONFIG.value.data.crop
  return blank.blank_dataset(domain.name, domain.variant, (2 * height, 2 * width))


def _config_name() -> str:
  return pathlib.Path(flags.FLAGS["config"].config_filename.partition(":")[0]).stem


if __name__ == "__main__":
  app.run(main)
