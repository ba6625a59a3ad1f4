"""ADE20K: names and colours of the original, whose colours are one row late."""

import numpy as np

from data.ade20k import builder
from tests import golden
from tests.data import builder_checks


def test_names_of_the_original():
  assert list(builder.CLASS_NAMES) == builder_checks.label_names("ade20k")


@golden.cases("segmentation_zoo/constants*", holding="ade20k")
def test_colours_of_the_original(case):
  np.testing.assert_array_equal(builder.PALETTE, case["ade20k"][1:])
