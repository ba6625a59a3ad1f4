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

from absl import app, flags

from data import blank, prepare
from semiseg_jax.commands import run
from semiseg_jax.commands.flags import define_config

define_config()
flags.DEFINE_string("workdir", None, "Holds all of a run; default runs/NAME_OF_CONFIG.")
flags.DEFINE_enum("mode", "train", ["train", "evaluate", "predict", "plan"], "What to do.")
flags.DEFINE_string("images", None, "predict: the folder of pictures.")
flags.DEFINE_string("out", None, "predict: where to; default WORKDIR/predictions.")
flags.DEFINE_bool("overlays", False, "predict: also the colours over each picture.")
flags.DEFINE_bool("skip_bad", False, "predict: leave out damaged pictures and go on.")
flags.DEFINE_string("topology", None, "plan: the TPU slice, such as v5e:2x4.")
flags.DEFINE_bool("search", False, "plan: also look for the largest batch that fits.")
flags.DEFINE_bool("full_effort", False, "plan: compile as for a real run; slow.")
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of several.")
flags.DEFINE_integer("num_processes", None, "How many are started.")
flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")
flags.DEFINE_integer("peer_timeout", 300, "Seconds to wait for a silent process.")


def main(argv: list[str]) -> int:
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments {argv[1:]}; flags begin with --")
  return run.launch(flags.FLAGS, prepare.ensure, blank.known)


if __name__ == "__main__":
  app.run(main)
