"""Compiled programs on disk: taken from there, and no harm where that can't be."""

import logging
import pathlib
import warnings

import jax
import jax.numpy as jnp
import pytest
from jax import monitoring

from semiseg_jax.runtime import compile_cache
from semiseg_jax.runtime.compile_cache import folder_in_use, keep_programs
from tests.processes import clean_environment, finish, start

_KEYS = (
  "jax_compilation_cache_dir",
  "jax_enable_compilation_cache",
  "jax_persistent_cache_min_compile_time_secs",
)
_HIT = "/jax/compilation_cache/cache_hits"
_PROGRAM = """
import sys, jax
from semiseg_jax.runtime.compile_cache import keep_programs
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
keep_programs(sys.argv[1])
print(jax.jit(lambda x: x * 3 + 1)(2.0), hits.count("/jax/compilation_cache/cache_hits"))
"""


@pytest.fixture(autouse=True)
def as_a_user(monkeypatch):
  """No folder is set, and what is set is forgotten."""
  before = {key: jax.config.values[key] for key in _KEYS}
  jax.config.update("jax_compilation_cache_dir", None)
  monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
  yield
  for key, value in before.items():
    jax.config.update(key, value)
  compile_cache.compilation_cache.reset_cache()


@pytest.fixture
def hits():
  """The events of JAX since now."""
  events: list[str] = []
  listener = lambda event, **_: events.append(event)
  monitoring.register_event_listener(listener)
  yield lambda: events.count(_HIT)
  monitoring.unregister_event_listener(listener)


def compiled_anew(number: float) -> float:
  """Of a function that JAX has not seen, whose program it may have."""
  return float(jax.jit(lambda x: jnp.cos(x) * 3)(jnp.float32(number)))


def test_the_second_start_takes_what_the_first_has_compiled(tmp_path, hits):
  keep_programs(str(tmp_path / "programs"))
  assert folder_in_use() == str(tmp_path / "programs")
  first = compiled_anew(1.0)
  kept = hits()
  assert list((tmp_path / "programs").iterdir())
  assert compiled_anew(1.0) == first and hits() == kept + 1


@pytest.mark.parametrize("where", ["none", ""])
def test_nowhere(tmp_path, where, monkeypatch, hits):
  monkeypatch.chdir(tmp_path)
  jax.config.update("jax_compilation_cache_dir", str(tmp_path))
  keep_programs(where)
  compiled_anew(2.0), compiled_anew(2.0)
  assert folder_in_use() is None and hits() == 0 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("device", "is_kept"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_auto(tmp_path, monkeypatch, device, is_kept):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(compile_cache, "platform", lambda: device)
  keep_programs("auto")
  assert folder_in_use() == (str(tmp_path / "semiseg_jax/programs") if is_kept else None)


def test_auto_leaves_what_jax_was_told(tmp_path, monkeypatch):
  monkeypatch.setattr(compile_cache, "platform", lambda: "gpu")
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
  keep_programs("auto")
  assert folder_in_use() == str(tmp_path / "mine")


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path, caplog):
  (tmp_path / "file").write_text("")
  with caplog.at_level(logging.WARNING):
    keep_programs(str(tmp_path / "file/programs"))
  assert "compiled programs are not kept" in caplog.text and str(tmp_path) in caplog.text
  assert folder_in_use() is None and compiled_anew(0.0) == 3.0


def test_a_bucket_is_refused():
  with pytest.raises(ValueError, match="gs://b/programs must be on this machine"):
    keep_programs("gs://b/programs")


@pytest.mark.parametrize(
  "damage", [lambda whole: whole[: len(whole) // 2], lambda _: b"", lambda whole: bytes(len(whole))]
)
def test_a_damaged_entry_does_no_harm(tmp_path, damage):
  keep_programs(str(tmp_path))
  right = compiled_anew(1.5)
  entries = list(pathlib.Path(tmp_path).glob("*-cache"))
  assert entries
  for entry in entries:
    entry.write_bytes(damage(entry.read_bytes()))
  with warnings.catch_warnings(record=True):
    warnings.simplefilter("always")
    assert compiled_anew(1.5) == right


def test_processes_share_a_folder(tmp_path):
  run = lambda: start(clean_environment(tmp_path), "-c", _PROGRAM, str(tmp_path / "programs"))
  both = [run(), run()]
  assert [finish(process)[0].split()[0] for process in both] == ["7.0", "7.0"]
  value, hits = finish(run())[0].split()
  assert value == "7.0" and int(hits) >= 1
