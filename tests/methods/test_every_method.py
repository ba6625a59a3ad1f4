"""What holds for every method there is, found by itself: see tests/tiny.py, `small_methods`."""

import dataclasses

import pytest

from semiseg_jax.methods import METHODS, make_method
from tests.methods.laws import assert_resumes, assert_same_on
from tests.tiny import facts_of, small_methods, tiny_start

SMALL = small_methods()
FIRST = {method: next(n for n in SMALL if n.startswith(f"{method}/")) for method in METHODS}
# what another method is made of runs in that one's steps
LAST = [
  name
  for method, name in FIRST.items()
  if sum(issubclass(kind, METHODS[method]) for kind in METHODS.values()) == 1
]


def marks(name: str, devices: int = 8):
  return [] if name in LAST and devices == 8 else pytest.mark.slow


def in_turn():
  """Each method's first variant with four images and with one on a device, the others with two."""
  counts = lambda name: (2, 8) if name in FIRST.values() else (4,)
  return [pytest.param(name, n, marks=marks(name, n)) for name in SMALL for n in counts(name)]


@pytest.mark.parametrize(("name", "devices"), in_turn())
def test_law_of_n_devices(name, devices):
  assert_same_on(devices, make_method(SMALL[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST.values())
def test_a_second_domain_obeys_the_law_too(name):
  assert_same_on(8, make_method(SMALL[name]), domain=True)


@pytest.mark.parametrize("name", [pytest.param(n, marks=marks(n)) for n in FIRST.values()])
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
