"""Every test sees the devices and the compiler's settings of `tests.environment`."""

from tests import environment

environment.enter()
