"""Checkpoints come back as they were; damaged and foreign ones are told apart."""

import errno
import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from semiseg_jax.contract import Variables
from semiseg_jax.runtime import mesh
from semiseg_jax.runtime.checkpoints import Checkpoints, _reason, _say_unless_closed
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


def test_arrays_come_back_as_they_lie_in_memory(tmp_path, monkeypatch):
  saved = {"net": Variables({"kernel": np.arange(48.0).reshape(2, 2, 3, 4)}, {})}
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(1, replicate(saved, make_mesh()), {})
    checkpoints.wait()
    monkeypatch.setattr(mesh, "platform", lambda: "gpu")
    like = replicate(jax.tree.map(np.zeros_like, saved), make_mesh())
    arrays, _ = checkpoints.restore(like)
    found, wanted = arrays["net"].params["kernel"], like["net"].params["kernel"]
    assert found.format == wanted.format
    np.testing.assert_array_equal(found, saved["net"].params["kernel"])
    checkpoints.save(2, arrays, {})
    checkpoints.wait()
    arrays, _ = checkpoints.restore(saved)
  np.testing.assert_array_equal(arrays["net"].params["kernel"], saved["net"].params["kernel"])


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


NAMES = ("crop=[321,321]", "run[1]", "[x] y", "a\\b", "a*b", "a?b", "ümlaut\n", "50% #1", "a{b}'c")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_directory_works(tmp_path, name):
  for step in (1, 2):  # the second goes on from the first
    with Checkpoints(tmp_path / name / "best", keep=1) as checkpoints:
      checkpoints.save(step, tree(step), {"step": step})
    with Checkpoints(tmp_path / name / "best", keep=1) as checkpoints:
      arrays, about = checkpoints.restore(tree(0))
      assert checkpoints.latest_step() == about["step"] == arrays["step"] == step
  assert [path.name for path in (tmp_path / name / "best").iterdir()] == ["2"]
  assert [path.name for path in tmp_path.iterdir()] == [name]


def test_readers_leave_a_save_that_is_going_on_alone(tmp_path):
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(1, tree(1), {"step": 1})
  unfinished = tmp_path / "2.orbax-checkpoint-tmp" / "arrays.orbax-checkpoint-tmp"
  unfinished.mkdir(parents=True)
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    assert checkpoints.about() == {"step": 1} and checkpoints.restore(tree(0))
    assert checkpoints.latest_step() == 1
  assert unfinished.is_dir()
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(2, tree(2), {})
  assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_one_that_is_replaced_while_it_is_read_is_not_damaged(tmp_path, caplog):
  with Checkpoints(tmp_path, keep=1) as writer, Checkpoints(tmp_path, keep=1) as reader:
    writer.save(1, tree(1), {"step": 1})
    writer.wait()

    def read(about):
      if about["step"] < 3:
        writer.save(about["step"] + 1, tree(about["step"] + 1), {"step": about["step"] + 1})
        writer.wait()
        raise OSError("it is gone")

    arrays, about = reader.restore(tree(0), read)
  assert about["step"] == arrays["step"] == 3 and "damaged" not in caplog.text


def test_what_says_nothing_of_use_is_damaged(tmp_path, caplog):
  def check(about):
    about["best"]["step"] + 1

  with Checkpoints(tmp_path, keep=4) as checkpoints:
    for step, best in enumerate([{"step": 7}, {"step": "x"}, [], None]):
      checkpoints.save(step, tree(step), {"best": best})
    checkpoints.wait()
    assert checkpoints.about(check) == {"best": {"step": 7}}
  assert caplog.text.count("skipping damaged checkpoint") == 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_save_that_fails_in_the_background_is_one_line(tmp_path, monkeypatch, capfd, number):
  async def full(*_):
    raise OSError(number, os.strerror(number))

  with Checkpoints(tmp_path, keep=2) as checkpoints:
    checkpoints.save(1, tree(1), {})
  monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", full)
  message = (
    f"can't be written to {tmp_path}: {os.strerror(number)}; the last whole one is of step 1"
  )
  with pytest.raises(OSError, match=message), Checkpoints(tmp_path, keep=2) as checkpoints:
    checkpoints.save(2, tree(2), {})
    checkpoints.save(3, tree(3), {})
  assert "Traceback" not in capfd.readouterr().err


def test_so_is_what_tensorstore_says():
  said = 'X: Error writing "a/0": Failed to write 9 bytes to file 8: No space left on device ['
  assert _reason(ValueError(f"{said}os_error_code='28']")) == "No space left on device"


def test_threads_of_a_read_that_failed_are_not_heard(capsys):
  said = lambda error: _say_unless_closed(print, SimpleNamespace(exc_value=error))
  said(RuntimeError("Event loop is closed"))
  assert not capsys.readouterr().out
  said(RuntimeError("something else"))
  assert "something else" in capsys.readouterr().out


def test_a_look_that_misses_all_is_not_believed(tmp_path, monkeypatch):
  looks = iter([[], [2], [2], [2]])
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    monkeypatch.setattr(checkpoints, "_look", lambda: next(looks))
    assert checkpoints.latest_step() == 2
