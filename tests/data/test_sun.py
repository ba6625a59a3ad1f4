"""SUN RGB-D: ReCo's ids, colours and division."""

import numpy as np
from PIL import Image

from data import prepare
from data.sun import builder
from semiseg_jax.input import prepared
from tests import golden
from tests.data import trees


@golden.cases("reco/label_maps*", holding="sun")
def test_ids(case):
  known = case["id"] <= 37  # beyond, the original would have classes that it has no output for
  np.testing.assert_array_equal(builder.Builder.CLASS_OF_ID[known], case["sun"][known])
  assert (builder.Builder.CLASS_OF_ID[~known] == -1).all()


@golden.cases("reco/colormaps*", holding="sun")
def test_colours(case):
  np.testing.assert_array_equal(builder.Builder.PALETTE, case["sun"][:37])


def test_names_and_test_images():
  assert len(set(builder.Builder.CLASS_NAMES)) == 37
  numbers = builder.test_numbers()
  assert len(numbers) == len(set(numbers)) == 475 and numbers == sorted(numbers)
  assert (numbers[0], numbers[-1]) == (8, 5040)  # all of them official test images


def test_everything_is_stored_at_one_size(tmp_path, monkeypatch):
  tree = trees.write_sun(tmp_path / "raw", monkeypatch)
  monkeypatch.setattr(builder, "SIZE", (16, 12))
  path = prepare.prepare("sun", tmp_path / "raw", tmp_path / "out")
  record, name = prepared.PreparedSource(path, "train")[2], "img-000004"
  image = Image.open(tree.pairs["train"][name].image)
  np.testing.assert_array_equal(record["image"], image.resize((16, 12), Image.Resampling.BICUBIC))
  label = Image.fromarray(tree.labels[name]).resize((16, 12), Image.Resampling.NEAREST)
  np.testing.assert_array_equal(record["label"], label)
