"""Evaluation batches without margins."""

import numpy as np
import pytest

from semiseg_jax.input.own_size import OwnSizeBatches
from semiseg_jax.labels import IGNORE
from tests.input.test_pipeline import KEYS, Tiny

SIZES = ((8, 9), (6, 5), (7, 5))


@pytest.mark.parametrize(
  ("hosts", "devices", "rows"), [(1, 1, 4), (2, 2, 4), (4, 4, 4), (1, 3, 6), (2, 10, 10)]
)
def test_every_image_once_in_its_own_size(hosts, devices, rows):
  """rows: of a step of `batch` 4, which `devices` of all hosts can share."""
  source = Tiny(14, sizes=SIZES)
  shares = [
    OwnSizeBatches(source, batch=4, host=(host, hosts), devices=devices) for host in range(hosts)
  ]
  for _ in range(2):  # as often as you like
    steps = list(zip(*map(list, shares), strict=True))
    index = np.concatenate([part["index"] for step in steps for part in step])
    assert sorted(index[index >= 0]) == list(range(14))
    full = sum(len([i for i in range(14) if i % 3 == kind]) // rows for kind in range(3))
    assert full <= len(steps) <= full + 3 and len(index) == rows * len(steps)
    for step in steps:
      assert len({part["image"].shape for part in step}) == 1
      for image, label, size, row in (x for p in step for x in zip(*map(p.get, KEYS), strict=True)):
        assert image.shape[:2] == label.shape == tuple(size)
        if row < 0:
          assert (label == IGNORE).all()
          continue
        np.testing.assert_array_equal(image, source[row]["image"])
        np.testing.assert_array_equal(label, source[row]["label"])


def test_a_full_batch_does_not_wait_for_the_end():
  first = next(iter(OwnSizeBatches(Tiny(14, sizes=SIZES), batch=2)))
  assert first["index"].tolist() == [0, 3]


def test_without_images():
  with pytest.raises(ValueError, match="the evaluation stream has no image"):
    OwnSizeBatches(Tiny(0), batch=1)
