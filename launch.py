"""Trains, evaluates or predicts.

    python launch.py --config=configs/toy_reco.py --workdir=runs/toy
    python launch.py --config=configs/toy_reco.py --workdir=runs/toy --mode=evaluate
    python launch.py --workdir=runs/toy --mode=predict --images=DIR

Run twice with the same workdir, it goes on where it stopped. Any value of the config can be changed
here: --config.training.steps=100. With -v=1 an error shows where it came from.

On several hosts start the same command on each (docs/scaling.md). The exit code is 0 at the end, 1 if
something is wrong, and 75 for a run that was stopped or lost a host: start it again.
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, FILE.py[:ARGUMENTS].")
_WORKDIR = flags.DEFINE_string("workdir", None, "Holds all of a run; default runs/NAME_OF_CONFIG.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate", "predict"], "What to do.")
_IMAGES = flags.DEFINE_string("images", None, "predict: the folder of pictures.")
_OVERLAYS = flags.DEFINE_bool("overlays", False, "predict: also the colours over each picture.")
_SKIP_BAD = flags.DEFINE_bool("skip_bad", False, "predict: leave out damaged pictures and go on.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of several.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many are started.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")
_PEER_TIMEOUT = flags.DEFINE_integer("peer_timeout", 300, "Seconds to wait for a silent process.")
_OUT = flags.DEFINE_string("out", None, "predict: where to; default WORKDIR/predictions.")


def main(argv: list[str]) -> int:
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments {argv[1:]}; flags begin with --")
  from data import prepare
  from semiseg_jax.training import hosts, run
  from semiseg_jax.training.loop import DivergedError

  if not logging.level_debug():
    logging.set_verbosity(logging.WARNING)  # the libraries report every file they touch

  config = _CONFIG.value
  if config is None and not (_MODE.value == "predict" and _WORKDIR.value):
    raise app.UsageError("--config is missing (only --mode=predict with --workdir needs none)")
  workdir = pathlib.Path(_WORKDIR.value or f"runs/{_config_name()}")
  processes = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  try:
    with hosts.joined(*processes, timeout=_PEER_TIMEOUT.value):
      if _MODE.value == "predict":
        options = {"overlays": _OVERLAYS.value, "skip_bad": _SKIP_BAD.value}
        run.predict(config, workdir, _IMAGES.value, _OUT.value, **options)
        return 0
      for domain in (config.data, config.data.source):
        if domain.name and domain.name != "folder":
          prepare.ensure(domain.name, domain.variant, config.data.data_dir)
      result = getattr(run, _MODE.value)(config, workdir)
      return hosts.RETRY if result.get("status") == "interrupted" else 0
  except (ValueError, FileNotFoundError, DivergedError) as error:
    if logging.level_debug():
      raise
    print(f"launch.py: {error}", file=sys.stderr)
    return 1


def _config_name() -> str:
  return pathlib.Path(flags.FLAGS["config"].config_filename.partition(":")[0]).stem


if __name__ == "__main__":
  app.run(main)
