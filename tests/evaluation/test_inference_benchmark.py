"""The benchmark of evaluation and prediction."""

import sys

import jax
import pytest

from tests.benchmarks import inference


def test_pictures_of_a_dozen_sizes(tmp_path):
  inference.write_pictures(tmp_path, 13, (48, 64), 5)
  pictures = sorted((tmp_path / "images").iterdir())
  sizes = [inference.Image.open(path).size for path in pictures]
  assert len(set(sizes)) == 12 and all(w < 128 and h < 96 for w, h in sizes)
  masks = [inference.Image.open(path).size for path in sorted((tmp_path / "masks").iterdir())]
  assert masks == sizes


@pytest.mark.slow
def test_a_whole_measurement(monkeypatch, capsys):
  small = ["data.crop=(48,48)", "model.trunk.width=4", "model.decoder_dim=8"]
  words = ["inference", "--config=toy_supervised", "--images=14"]
  monkeypatch.setattr(sys, "argv", [*words, *(f"--set={change}" for change in small)])
  cached = jax.config.values["jax_enable_compilation_cache"]
  inference.main()
  jax.config.update("jax_enable_compilation_cache", cached)
  _, evaluation, prediction = capsys.readouterr().out.splitlines()[-3:]
  assert evaluation.startswith("evaluation") and " 1 programs compiled" in evaluation
  assert prediction.startswith("prediction") and "images/s" in prediction
