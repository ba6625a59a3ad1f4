"""On how many devices a law is tried with eight images."""

import pytest

# Several devices with several images each; fewer and more of them in the slow suite.
DEVICES = [4, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 8))]
