"""How many devices share out the batches of a run."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from semiseg_jax.runtime import mesh


@pytest.mark.parametrize(
  ("batches", "count"), [([8, 8], 8), ([4, 8], 4), ([5, 2], 1), ([6, 12], 6), ([14, 7], 7)]
)
def test_the_largest_number_that_divides_every_batch(batches, count):
  assert len(mesh.sharing_devices(batches)) == count


@pytest.mark.parametrize(
  ("rows", "devices", "wanted"),
  [((8, 16), 8, (8, 16)), ((2, 4), 8, (8, 16)), ((5, 2), 4, (20, 8)), ((12, 12), 8, (16, 16))],
)
def test_larger_batches_keep_their_proportion(rows, devices, wanted):
  found = mesh.larger_batches(dict(zip(("labeled", "unlabeled"), rows, strict=True)), devices)
  assert tuple(found.values()) == wanted


def test_idle_devices_are_told_of():
  few = mesh.make_mesh(mesh.sharing_devices([6, 6]))
  line = mesh.idle_devices(few, {"labeled": 6, "unlabeled": 6})
  assert line.startswith("6 of 8 devices are used") and ":batch=8" in line and "\n" not in line
  assert mesh.idle_devices(mesh.make_mesh(), {"labeled": 8}) == ""


def test_hosts_that_cannot_share(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 3)
  with pytest.raises(ValueError, match="batches of 4, 2 images can't be shared out among 3 hosts"):
    mesh.sharing_devices([4, 2])


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(("kind", "order"), [("cpu", (0, 1, 2, 3)), ("gpu", (3, 0, 1, 2))])
def test_on_gpus_a_kernel_lies_with_its_outputs_outermost(monkeypatch, kind, order, devices):
  monkeypatch.setattr(mesh, "platform", lambda: kind)
  host = {"kernel": np.arange(48.0).reshape(2, 2, 3, 4), "bias": np.arange(4.0)}
  over = mesh.make_mesh(jax.devices()[:devices])
  placed = mesh.replicate(host, over)
  assert placed["kernel"].format.layout.major_to_minor == order
  assert placed["bias"].format.layout.major_to_minor == (0,)
  jax.tree.map(np.testing.assert_array_equal, placed, host)
  shapes = jax.eval_shape(lambda: host)
  assert mesh.forms(shapes, P(), over) == mesh.forms(placed, P(), over)
