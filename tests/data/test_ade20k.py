"""ADE20K: names and colours of the original, whose colours are one row late."""

import numpy as np

from data.ade20k import builder
from tests import golden
from tests.data import builder_checks


def test_names_and_colours_of_the_original():
  assert list(builder.CLASS_NAMES) == builder_checks.label_names("ade20k")
  constants = golden.load("segmentation_zoo/constants")
  np.testing.assert_array_equal(builder.PALETTE, constants["ade20k"][1:])
