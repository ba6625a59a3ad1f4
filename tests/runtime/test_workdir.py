"""Whether a run may go on in a working directory."""

import json

import pytest
from ml_collections import ConfigDict

from semiseg_jax.runtime.workdir import claim


def config(**sections):
  return ConfigDict({"seed": 0, "inference": {"mode": "whole"}, **sections})


def test_other_inference_is_no_other_run(tmp_path):
  claim(tmp_path, config())
  claim(tmp_path, config(inference={"mode": "sliding"}))
  with pytest.raises(ValueError, match="another config: seed: 0 there, 1 now"):
    claim(tmp_path, config(seed=1))


def test_runs_from_before_there_was_inference_go_on(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"seed": 0}))
  claim(tmp_path, config())
