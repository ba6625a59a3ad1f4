"""Trains, evaluates, predicts, or plans what training will take.

    python launch.py --config=configs/toy_reco.py --workdir=runs/toy
    python launch.py --config=configs/toy_reco.py --workdir=runs/toy --mode=evaluate
    python launch.py --workdir=runs/toy --mode=predict --images=DIR
    python launch.py --config=configs/city_reco.py --mode=plan --topology=v5e:2x4

Run twice with the same workdir, it goes on where it stopped. Any value of the config can be changed
here: --config.training.steps=100. With -v=1 an error shows where it came from.

On several hosts start the same command on each (docs/scaling.md). The exit code is 0 at the end, 1
if something is wrong, 75 for a run that was stopped or lost a host: start it again, and 130 for
what a second Ctrl-C, or one outside training, has ended.
"""

import functools
import signal

if __name__ == "__main__":  # so that Ctrl-C during the imports below ends without a traceback
  signal.signal(signal.SIGINT, signal.SIG_DFL)

from absl import app, flags

from data import blank, prepare
from semiseg_jax.commands import run
from semiseg_jax.commands.flags import define_config, define_path, parse_or_exit


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
  """Every flag there is, by default for this process."""
  define_config(values)
  text, path, switch, number = (
    functools.partial(define, flag_values=values)
    for define in (flags.DEFINE_string, define_path, flags.DEFINE_bool, flags.DEFINE_integer)
  )
  path("workdir", None, "Holds all of a run; default runs/NAME_OF_CONFIG.")
  modes = ["train", "evaluate", "predict", "plan"]
  flags.DEFINE_enum("mode", "train", modes, "What to do.", flag_values=values)
  sets = ["val", "test", "train"]
  flags.DEFINE_enum("split", "val", sets, "evaluate: on which set.", flag_values=values)
  path("images", None, 'predict: a picture, a folder of them, nested ones too, or "DIR/**/*.jpg".')
  path("out", None, "predict: where to; default WORKDIR/predictions.")
  text("inference", "", 'predict: keys of config.inference: "mode=sliding,window=(512,512)".')
  text("format", "palette", "predict: palette, or as servers take it: cityscapes | voc.")
  switch("overlays", False, "predict: also the colours over each picture.")
  switch("confidence", False, "predict: also how sure the network is, as a picture.")
  switch("probabilities", False, "predict: also the probabilities of all classes, as npz.")
  switch("skip_bad", False, "predict: leave out damaged pictures and go on.")
  switch("export_labels", False, "train in rounds: the last pseudo-labels as PNGs, too.")
  text("topology", None, "plan: TPUs such as v5e:2x4, or GPUs: h100, h100:8, h100:2x8.")
  switch("search", False, "plan: also look for the largest batch that fits.")
  switch("full_effort", False, "plan: compile for TPUs as for a real run; slow.")
  text("coordinator", None, "HOST:PORT of process 0, of several.")
  number("num_processes", None, "How many are started.", lower_bound=1)
  number("process_id", None, "Which one this is, from 0.", lower_bound=0)
  number("peer_timeout", 300, "Seconds to wait for a silent process.", lower_bound=1)


def main(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> int:
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments {argv[1:]}; flags begin with --")
  signal.signal(signal.SIGINT, signal.default_int_handler)
  return run.launch(values, prepare.ensure, blank.known)


if __name__ == "__main__":
  define_flags()
  app.run(main, flags_parser=parse_or_exit)
