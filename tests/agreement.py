"""One process of a run that does no more than compare its config with the others'.

For tests/test_hosts.py; imports little, so that it starts fast.
"""

import argparse

from ml_collections import ConfigDict

from semiseg_jax.runtime import processes


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("--temperature", type=float, default=0.5)
  parser.add_argument("--coordinator")
  parser.add_argument("--num_processes", type=int)
  parser.add_argument("--process_id", type=int)
  args = parser.parse_args()
  config = ConfigDict({"data": {}, "method": {"temperature": args.temperature}})
  with processes.joined(args.coordinator, args.num_processes, args.process_id, timeout=60):
    processes.check_agreement(config)


if __name__ == "__main__":
  main()
