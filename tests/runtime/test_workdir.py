"""Whether a run may go on in a working directory."""

import json

import pytest
from ml_collections import ConfigDict

from semiseg_jax.runtime.workdir import compare, matters, read_result, record


def config(**sections):
  return ConfigDict({"seed": 0, "inference": {"mode": "whole"}, **sections})


def test_other_inference_is_no_other_run(tmp_path):
  record(tmp_path, config(), {})
  assert compare(tmp_path, config(inference={"mode": "sliding"}), {})
  with pytest.raises(ValueError, match="another config: seed: 0 there, 1 now"):
    compare(tmp_path, config(seed=1), {})


def test_runs_from_before_there_was_inference_go_on(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"seed": 0}))
  compare(tmp_path, config(), {})


PLACES = {"root": "here/good", "data_dir": None, "threads": 2, "workers": 0, "buffer": 4}
TRAINING = {"steps": 8, "compile_cache": "auto"}
MODEL = {"remat": "none", "init_from": "/old/resnet50.pth"}
DATA = {"class_names": ["sky", "road"], "labeled": {"images": 2, "ids": "ab", "masks": "255"}}


@pytest.mark.parametrize(
  ("section", "now", "is_told"),
  [
    ("data", {"root": "/elsewhere"}, True),
    ("data", {"threads": 8, "workers": 2, "buffer": 1, "data_dir": "/data"}, True),
    ("model", {"remat": "blocks"}, True),
    ("training", {"compile_cache": "/scratch/programs"}, True),
    ("model", {"init_from": "/new/resnet50.pth"}, False),
  ],
)
def test_a_moved_run_goes_on(tmp_path, section, now, is_told):
  there = {"data": PLACES, "model": MODEL, "training": TRAINING}
  record(tmp_path, config(**there), DATA)
  there[section] = there[section] | now
  told = compare(tmp_path, config(**there), DATA)
  assert bool(told) == is_told and not any(map(matters, told))  # so that one that is done stays so


def test_more_steps_may_change_the_result(tmp_path):
  record(tmp_path, config(training=TRAINING), DATA)
  told = compare(tmp_path, config(training=TRAINING | {"steps": 9}), DATA)
  assert list(map(matters, told)) == [True]


def test_other_weights_are_another_run(tmp_path):
  record(tmp_path, config(model=MODEL), DATA)
  with pytest.raises(ValueError, match=r"model\.init_from"):
    compare(tmp_path, config(model=MODEL | {"init_from": "/old/resnet101.pth"}), DATA)


@pytest.mark.parametrize(
  ("data", "said"),
  [
    ({"class_names": ["road", "sky"]}, r"class_names: \['sky', 'road'\] there"),
    ({"labeled": {**DATA["labeled"], "masks": "0"}}, "labeled.masks: '255' there, '0' now"),
    ({"labeled": {**DATA["labeled"], "ids": "cd"}}, "labeled.ids: 'ab' there, 'cd' now"),
  ],
)
def test_other_data_in_the_same_place_are_refused(tmp_path, data, said):
  record(tmp_path, config(), DATA)
  with pytest.raises(ValueError, match=f"another config: of its data {said}"):
    compare(tmp_path, config(), DATA | data)


@pytest.mark.parametrize("content", [b"no json", b"\xff\xfe\x00", b"[1, 2]", b"", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_damaged_files_are_named(tmp_path, name, content):
  record(tmp_path, config(), DATA)
  (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError, match=rf"{name} (is damaged|holds a list).*restore it"):
    compare(tmp_path, config(), DATA)


def test_a_result_that_cannot_be_read_is_none(tmp_path):
  for text in ("", "[]", '{"status": "finished"}', '{"status": 1, "step": "x", "best": 2}'):
    (tmp_path / "result.json").write_text(text)
    assert read_result(tmp_path) == {}
