"""What can be done beside training.

    python -m semiseg_jax check DIR|NAME         looks for mistakes in images and masks
    python -m semiseg_jax inspect --config=FILE  draws what the network will see, measures reading
    python -m semiseg_jax compare RUN RUN ...    prints and draws runs side by side
    python -m semiseg_jax convert WEIGHTS        PyTorch weights to ours and back

Each has a --help of its own. Training, evaluation and prediction are in launch.py.
"""

import importlib
import signal
import sys

from absl import logging

from semiseg_jax.runtime.errors import INTERRUPTED, in_one_line

COMMANDS = ("check", "inspect", "compare", "convert")


def main(argv: list[str]) -> int:
  """Runs the command that is named first with the other arguments; returns its exit code.

  What is wrong is said in one line; with -v=1, of commands that have it, also where it came from.
  """
  if argv and argv[0] in COMMANDS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # during the import, which would have a traceback
    command = importlib.import_module(f"semiseg_jax.commands.{argv[0]}")  # the others stay unread
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
      return command.main(argv[1:])
    except (ValueError, OSError, ImportError) as error:
      if logging.level_debug():
        raise
      print(f"{argv[0]}: {in_one_line(error)}", file=sys.stderr)
      return 1
    except KeyboardInterrupt:
      print(f"{argv[0]}: interrupted", file=sys.stderr)
      return INTERRUPTED
  print(__doc__.strip(), file=sys.stdout if argv in (["--help"], ["-h"]) else sys.stderr)
  return 0 if argv in (["--help"], ["-h"]) else 2


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
