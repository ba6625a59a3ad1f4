"""Which pictures are predicted."""

import numpy as np
import pytest
from PIL import Image

from semiseg_jax.evaluation.listing import check_readable, find_pictures
from semiseg_jax.input.decode import decode_image
from semiseg_jax.input.files import IMAGE_SUFFIXES
from semiseg_jax.input.folder import list_pairs


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, ".TIF", ".JPG"])
def test_what_can_be_trained_on_is_predicted(suffix, tmp_path):
  path = tmp_path / "day" / f"a.1{suffix}"
  path.parent.mkdir()
  Image.fromarray(np.full((4, 5, 3), 90, np.uint8)).save(path)
  assert list_pairs(tmp_path, tmp_path / "masks").images == (path,)
  (found,) = find_pictures(tmp_path, tmp_path / "out")
  assert found.path == path and str(found.name) == "day/a.1"
  check_readable(path)
  assert decode_image(path.read_bytes(), str(path)).shape == (4, 5, 3)
