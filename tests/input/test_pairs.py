"""Pictures and masks that are given one by one."""

import numpy as np
import pytest
from PIL import Image

from semiseg_jax.input.pairs import Pairs
from tests.input.files import encoded, with_orientation

PIXELS = np.zeros((6, 9, 3), np.uint8)
IDS = np.arange(54, dtype=np.uint8).reshape(9, 6) % 3


def test_sizes_are_as_shown(tmp_path):
  path = tmp_path / "a.jpg"
  path.write_bytes(with_orientation(Image.fromarray(PIXELS), "JPEG", 6))
  pairs = Pairs([path, PIXELS], [IDS, IDS.T], 3, 255)
  assert pairs.sizes == [(6, 9), (9, 6)]
  np.testing.assert_array_equal(pairs[0]["label"], IDS)


def test_masks_whose_palettes_contradict(tmp_path):
  colours = np.array([(200, 30, 0), (0, 90, 250), (10, 220, 60)], np.uint8)
  masks = []
  for name, ids in (("a", IDS), ("b", IDS // 2)):
    masks.append(tmp_path / f"{name}.png")
    masks[-1].write_bytes(encoded(Image.fromarray(colours[ids]).quantize()))
  pairs = Pairs([PIXELS.transpose(1, 0, 2)] * 2, masks, 3, 255)
  assert pairs[0]["label"].shape == (9, 6)
  with pytest.raises(ValueError, match=r"b\.png shows id 0 as .*, .*a\.png as"):
    pairs[1]
