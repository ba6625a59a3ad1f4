"""Checkpoints come back as they were; damaged and foreign ones are told apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.contract import Variables
from semiseg_jax.runtime.checkpoints import Checkpoints
from semiseg_jax.runtime.mesh import make_mesh, replicate


def tree(value: float, size: int = 5) -> dict:
  return {
    "step": jnp.int32(value),
    "params": {"kernel": jnp.full(size, value)},
    "teacher": Variables({"kernel": jnp.full(size, -value)}, {}),
    "method_state": None,
  }


def damage(checkpoints: Checkpoints, step: int) -> None:
  for path in checkpoints.path(step).glob("arrays/**/d/*"):
    path.write_bytes(b"")


def test_round_trip_on_another_number_of_devices(tmp_path):
  saved = replicate({"x": np.arange(6.0)}, make_mesh(jax.devices()[:2]))
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    checkpoints.save(3, saved, {"note": "three"})
    checkpoints.wait()
    like = replicate({"x": np.zeros(6)}, make_mesh())
    arrays, about = checkpoints.restore(like)
  assert about == {"note": "three"}
  assert arrays["x"].sharding == like["x"].sharding
  np.testing.assert_array_equal(arrays["x"], np.arange(6.0))


def test_newest_is_restored_and_only_some_are_kept(tmp_path):
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    assert checkpoints.restore(tree(0)) is None
    for step in (1, 2, 3):
      checkpoints.save(step, tree(step), {"step": step})
    checkpoints.wait()
    arrays, about = checkpoints.restore(tree(0))
    assert about == {"step": 3} and arrays["method_state"] is None
    assert isinstance(arrays["teacher"], Variables)
    np.testing.assert_array_equal(arrays["teacher"].params["kernel"], np.full(5, -3.0))
    assert not checkpoints.path(1).exists() and checkpoints.path(2).exists()


def test_damaged_newest_is_skipped_with_a_warning_and_can_be_written_again(tmp_path, caplog):
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    for step in (1, 2):
      checkpoints.save(step, tree(step), {"step": step})
    checkpoints.wait()
    damage(checkpoints, 2)
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    _, about = checkpoints.restore(tree(0))
    assert about == {"step": 1}
    assert "skipping damaged checkpoint" in caplog.text and str(checkpoints.path(2)) in caplog.text
    checkpoints.save(2, tree(20), {"step": 2})
    checkpoints.wait()
    arrays, _ = checkpoints.restore(tree(0))
    assert arrays["step"] == 20


def test_all_damaged_is_an_error_and_not_a_fresh_start(tmp_path):
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    checkpoints.save(1, tree(1), {})
    checkpoints.wait()
    damage(checkpoints, 1)
    with pytest.raises(ValueError, match=r"none of the checkpoints \[1\]"):
      checkpoints.restore(tree(0))


def test_checkpoint_of_another_model(tmp_path):
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    checkpoints.save(1, tree(1), {})
    checkpoints.wait()
    with pytest.raises(ValueError, match=r"another model: params/kernel is \(5,\).*\(6,\)"):
      checkpoints.restore(tree(1, size=6))
