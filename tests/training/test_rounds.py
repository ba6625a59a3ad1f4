"""Self-training in rounds: which stages there are, and whole runs, interrupted ones too."""

import json
import os
import pathlib
import signal

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from semiseg_jax.commands import run
from semiseg_jax.input import pseudo_labels
from semiseg_jax.input.pseudo_labels import PseudoLabels
from semiseg_jax.training import loop, rounds
from semiseg_jax.training.rounds import best_of, outcome, stage_config, stages
from tests.training.test_loop import last_state

STEPS = 4


def small(tiny_config, **values):
  config = tiny_config("dst_cbc", steps=STEPS, **{"evaluation.every": 2, **values})
  config.rounds.first = ConfigDict({"method": {"rule": None}, "training": {"steps": 6}})
  config.rounds.labels.chunk = 20
  return config


@pytest.fixture(scope="module")
def finished(tiny_config, tmp_path_factory):
  """(config, workdir, result) of a run that nothing disturbed."""
  config, workdir = small(tiny_config), tmp_path_factory.mktemp("rounds")
  return config, workdir, run.train(config, workdir)


def scores_of(**scores):
  return {name: {"best": {"score": score}, "round": int(name[6])} for name, score in scores.items()}


def test_a_stage_without_a_score_ends_the_rounds(tiny_config, monkeypatch, tmp_path):
  result = {"status": "finished", "best": {"step": None, "score": None}}
  monkeypatch.setattr(rounds, "build", lambda *args: None)
  monkeypatch.setattr(loop, "train", lambda run, workdir: result)
  config = small(tiny_config)
  with pytest.raises(ValueError, match=r"round_0 has no best network .* was never a number"):
    rounds.trained(config, None, stages(config)[0], tmp_path)


def test_one_network_goes_on_from_the_best_of_all(tiny_config):
  config = small(tiny_config, **{"rounds.ratio": 0.2, "rounds.increment": 0.2})
  config.rounds.count = 3
  made = stages(config)
  assert [stage.ratio for stage in made] == [0.0, 0.2, 0.4, 0.6000000000000001]
  before = ("round_0", "round_1")
  assert made[2].starts_from == made[2].labeled_by == before
  assert best_of(scores_of(round_0=0.3, round_1=0.3), before) == "round_0"
  assert best_of(scores_of(round_0=None, round_1=0.0), before) == "round_1"
  assert outcome(config, scores_of(round_0=0.3, round_1=0.5, round_2=0.4)) == "round_1"


def test_two_networks_go_on_from_their_own_and_label_for_each_other(tiny_config):
  config = small(tiny_config)
  config.rounds.second = ConfigDict({"seed": 5, "data": {"labeled": "1/8_0"}})
  made = {stage.name: stage for stage in stages(config)}
  assert list(made) == [f"round_{i}{n}" for i in range(3) for n in "ab"]
  later = made["round_2a"]
  assert (later.starts_from, later.labeled_by) == (("round_1a",), ("round_1b",))
  scores = scores_of(round_0a=0.9, round_1a=0.3, round_1b=0.4)
  assert outcome(config, scores) == "round_1b"
  results = {name: {**value, "folder": name} for name, value in scores.items()}
  own = stage_config(config, made["round_2b"], pathlib.Path("runs"), results)
  assert own.model.init_from == "runs/round_1b" and own.data.labeled == "1/8_0"
  assert own.data.pseudo_labels == "runs/round_2b_labels"
  first = stage_config(config, made["round_0b"], pathlib.Path("runs"), {})
  assert first.seed == 5 and own.seed not in (config.seed, 5) and first.method.rule is None


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"rounds.ratio": 1.5}, r"config\.rounds\.ratio=1\.5 must be at most 1"),
    ({"rounds.start": "a,b"}, "should name 1 working directories"),
    ({"method.rule": None}, "learns from labelled images alone"),
    ({"rounds.labels.version": "newest"}, "choose from 'scale', 'published'"),
    ({"rounds.labels.stride": 0}, r"labels\.stride=0 must be at least 1"),
    ({"rounds.count": 0}, r"pseudo-labels on disk, and there are none: set config\.rounds\.count"),
    ({"rounds.count": 0, "data.pseudo_labels": "nowhere"}, "no finished pseudo-labels"),
  ],
)
def test_what_does_not_fit(values, message, tiny_config, tmp_path):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    run.train(small(tiny_config, **values), tmp_path)
  assert not (tmp_path / "round_0").exists()


def test_a_run_leaves_everything_behind(finished, capsys):
  config, workdir, result = finished
  summary = json.loads((workdir / "summary.json").read_text())
  assert list(summary) == ["round_0", "round_1", "round_2"]
  assert [summary[name]["step"] for name in summary] == [6, STEPS, STEPS]
  assert result["status"] == "finished" and result["stage"] in summary
  assert result["best"]["score"] == max(x["best"]["score"] for x in summary.values())
  for name, ratio in (("round_1", 0.5), ("round_2", 1.0)):
    labels = summary[name]["labels"]
    assert labels["ratio"] == ratio and len(labels["thresholds"]) == 10
    assert 0 < labels["right"] <= 1 and ratio - 0.1 < labels["kept"] <= 1
  assert (workdir / "pictures" / "rounds.png").stat().st_size > 0
  assert run.evaluate(config, workdir)["miou_present"] == pytest.approx(
    result["best"]["score"], abs=1e-6
  )


def test_started_again_it_does_nothing_again(finished, monkeypatch):
  config, workdir, result = finished
  monkeypatch.setattr(loop, "train", None)
  monkeypatch.setattr(rounds, "label_images", None)
  assert run.train(config, workdir, export_labels=True) == result
  assert not (workdir / "round_1_labels").exists()
  source = rounds.unlabeled_images(config, rounds.open_data(config))
  labels = PseudoLabels(source, workdir / "round_2_labels")
  assert len(list((workdir / "pseudo_labels").glob("*.png"))) == len(labels) == 52
  with Image.open(workdir / "pseudo_labels" / f"{labels.ids[7]}.png") as picture:
    np.testing.assert_array_equal(np.asarray(picture), labels[7]["label"])


@pytest.mark.slow
def test_killed_in_a_labelling_pass_and_in_a_round(finished, tiny_config, tmp_path, monkeypatch):
  """The rerun ends with the same bits; tests/test_hosts.py kills processes."""
  config, workdir, result = finished
  write, writes, update = pseudo_labels.ChunkWriter.write, 0, loop._Training.update

  def dying(self, *args):
    nonlocal writes
    writes += 1
    write(self, *args)
    if writes == 30:  # in the second chunk
      os.kill(os.getpid(), signal.SIGTERM)

  def stopped(self):
    update(self)
    if int(self.state.step) == 2 and self.workdir.name == "round_2":
      os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(pseudo_labels.ChunkWriter, "write", dying)
    with pytest.raises(SystemExit, match="75"):  # which schedulers retry
      run.train(config, tmp_path)
  assert not (tmp_path / "round_1_labels" / "labels.json").exists()
  with monkeypatch.context() as patch:
    patch.setattr(loop._Training, "update", stopped)
    assert run.train(config, tmp_path)["status"] == "interrupted"
  assert run.train(config, tmp_path) == result
  for name in ("round_1", "round_2"):
    ours, theirs = (last_state(path / name) for path in (tmp_path, workdir))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  labels = "round_2_labels/chunk_00001.arrayrecord"
  assert (tmp_path / labels).read_bytes() == (workdir / labels).read_bytes()


@pytest.mark.slow
def test_two_networks_and_a_start_from_what_is_there(finished, tiny_config, tmp_path):
  config = small(tiny_config, **{"method.rule": "mutual"})
  config.rounds.update(count=1, second=ConfigDict({"seed": 1}))
  config.rounds.start = f"{finished[1] / 'round_0'},{finished[1] / 'round_1'}"
  result = run.train(config, tmp_path)
  summary = json.loads((tmp_path / "summary.json").read_text())
  assert list(summary) == ["round_0a", "round_0b", "round_1a", "round_1b"]
  assert not (tmp_path / "round_0a").exists() and result["stage"][:7] == "round_1"
  assert summary["round_1a"]["labels"]["about"]["stage"] == "round_0b"


def test_a_run_of_its_own_reads_labels_by_hand(finished, tiny_config, tmp_path):
  """config.data.pseudo_labels names a store; its records carry what the network learns from."""
  config = small(tiny_config, **{"rounds.count": 0})
  config.data.pseudo_labels = str(finished[1] / "round_2_labels")
  streams = rounds.build(config, rounds.open_data(config)).streams
  source = streams["unlabeled"].source
  assert isinstance(source, PseudoLabels) and len(source) == 52
  record = source[3]
  assert record["confidence"].dtype == np.float32
  assert record["label"].shape == record["image"].shape[:2]
