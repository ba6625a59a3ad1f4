"""What holds for every method there is, found by itself: see tests/tiny.py, `small_methods`."""

import dataclasses

import pytest

from semiseg_jax.methods import METHODS, make_method
from tests.methods.laws import assert_resumes, assert_same_on
from tests.tiny import facts_of, small_methods, tiny_start

SMALL = small_methods()
FIRST = [next(name for name in SMALL if name.startswith(f"{method}/")) for method in METHODS]


def in_turn(*devices: int):
  """Every variant on so many devices; in the default suite each method's first on 8."""
  marks = lambda name, count: [] if name in FIRST and count == 8 else pytest.mark.slow
  return [
    pytest.param(name, count, marks=marks(name, count)) for name in SMALL for count in devices
  ]


@pytest.mark.parametrize(("name", "devices"), in_turn(2, 4, 8))
def test_law_of_n_devices(name, devices):
  assert_same_on(devices, make_method(SMALL[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST)
def test_a_second_domain_obeys_the_law_too(name):
  assert_same_on(8, make_method(SMALL[name]), domain=True)


@pytest.mark.parametrize("name", FIRST)
def test_exact_resume(name, tmp_path):
  assert_resumes(make_method(SMALL[name]), tmp_path)


@pytest.mark.parametrize("name", SMALL)
def test_names_of_networks_fit_together(name):
  method = make_method(SMALL[name])
  assert set(method.trained) <= set(method.networks) and method.scored in method.networks
  assert "labeled" in method.streams
  start = tiny_start(method)
  networks, _ = method.start(start.variables, start.make, facts_of())
  assert set(networks) == set(method.networks)


@pytest.mark.parametrize("name", METHODS)
def test_every_hyper_parameter_is_explained(name):
  text = " ".join(kind.__doc__ or "" for kind in METHODS[name].__mro__[:-2])
  for field in dataclasses.fields(METHODS[name]):
    assert f"{field.name}" in text, f"the docstring doesn't explain {field.name}"
