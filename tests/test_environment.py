"""The settings that tests run with."""

import subprocess
import sys

import jax

from tests import environment
from tests.processes import clean_environment


def test_flags_that_a_jaxlib_lacks_are_left_out():
  assert environment.is_known("--xla_backend_optimization_level=0")
  assert not environment.is_known("--xla_backend_optimization=0")
  assert not environment.is_known("--xla_no_such_flag")


def test_other_processes_get_the_same_flags(tmp_path):
  theirs = clean_environment(tmp_path, environment.DEVICES)["XLA_FLAGS"]
  assert theirs == environment.xla_flags(environment.DEVICES)
  assert jax.device_count() == environment.DEVICES


def test_jaxlib_starts_with_every_flag(tmp_path):
  code = "import jax; assert jax.device_count() == 3"
  subprocess.run([sys.executable, "-c", code], env=clean_environment(tmp_path, 3), check=True)
