"""A network as a folder for a model hub: there and back, its card, and what is no such folder."""

import json
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest

from semiseg_jax import __main__ as program
from semiseg_jax.convert import card, hub, published
from semiseg_jax.convert.checkpoint import open_weights, save_network, trained_network
from semiseg_jax.files import write_json
from semiseg_jax.runtime.checkpoints import Checkpoints
from tests.convert.test_assign import make
from tests.test_house import FILES

pytest.importorskip("safetensors")

NAMES, PALETTE = ["road", "sky", "a|b", "traffic light", "car"], [[i, 0, 9] for i in range(5)]
ABOUT = {"class_names": NAMES, "palette": PALETTE}
SCORES = {name: 0.125 * i for i, name in enumerate(NAMES)}


def convert(*args) -> int:
  return program.main(["convert", *map(str, args)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """What a run leaves in its working directory, as far as it is read here."""
  workdir = tmp_path_factory.mktemp("runs") / "mine"
  model, variables = make("reco")
  with Checkpoints(workdir / "best", keep=1) as checkpoints:
    about = {**ABOUT, "network": "teacher", "model": model, "step": 40, "score": 0.5}
    checkpoints.save(40, variables, about)
  write_json(workdir / "config.json", {"method": {"name": "reco"}, "data": {"name": "pascal"}})
  result = {"best": {"step": 40, "score": 0.5}, "monitor": "miou_present"}
  write_json(workdir / "result.json", result)
  return workdir, variables, model


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
  """The run as a folder for a hub; not to be changed."""
  out = tmp_path_factory.mktemp("hub") / "mine"
  assert convert(run[0], "--hub", out) == 0
  return out


@pytest.fixture
def changed(folder, tmp_path):
  """A function: a copy of the folder, with another config.json."""

  def change(**values):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    write_json(copy / "config.json", {**config, **values})
    return copy

  return change


def test_there_and_back_without_orbax_or_torch(run, folder, monkeypatch):
  for name in ("orbax", "orbax.checkpoint", "torch"):
    monkeypatch.setitem(sys.modules, name, None)  # so that importing it fails
  variables, _, about = trained_network(folder)
  jax.tree.map(np.testing.assert_array_equal, variables, run[1])
  assert about["model"] == run[2] and about["class_names"] == NAMES and about["palette"] == PALETTE
  assert about["network"] == "teacher" and about["step"] == 40
  with pytest.raises(ImportError):
    trained_network(run[0])


def test_no_module_imports_orbax_with_itself():
  assert [name for name, path in FILES.items() if "import orbax" in path.read_text()] == []


def test_training_and_converting_take_it_as_any_network(folder, run, tmp_path):
  weights = open_weights(str(folder))
  assert weights.model == run[2]
  assert convert(folder, "--out", tmp_path / "out", "--to_torch", tmp_path / "x.safetensors") == 0
  variables, _, about = trained_network(tmp_path / "out")
  jax.tree.map(np.testing.assert_array_equal, variables, run[1])
  assert about["class_names"] == NAMES


def test_written_again_it_is_the_same(folder, tmp_path):
  assert convert(folder, "--hub", tmp_path) == 0
  assert (tmp_path / "config.json").read_bytes() == (folder / "config.json").read_bytes()
  assert "method `reco` on `pascal`" in (tmp_path / "README.md").read_text()


def test_a_conversion_becomes_one_too(tmp_path):
  model, variables = make("memory_bank")
  save_network(tmp_path / "converted", variables, model, ABOUT)
  assert convert(tmp_path / "converted", "--hub", tmp_path / "hub") == 0
  found, _, about = trained_network(tmp_path / "hub")
  jax.tree.map(np.testing.assert_array_equal, found, variables)
  assert about["network"] == "student" and "method" not in about
  assert "## Scores" not in (tmp_path / "hub" / "README.md").read_text()


def test_the_card_says_what_it_is_and_how_to_use_it(folder):
  text = (folder / "README.md").read_text()
  for part in (
    "library_name: semiseg_jax", "pipeline_tag: image-segmentation", "# license:",
    "deeplabv3p on resnet18, 5 classes", "method `reco` on `pascal`", "its teacher at step 40",
    "semiseg_jax.load(", "model.predict(", "| 3 | traffic light | #030009 |", r"| 2 | a\|b |",
    "`miou_present` on the validation images: 50.0 percent",
  ):  # fmt: skip
    assert part in text, part
  config = json.loads((folder / "config.json").read_text())
  assert config["method"]["name"] == "reco" and config["model"]["normalization"] == "imagenet"


def test_hubs_read_the_front_of_the_card(folder):
  library = pytest.importorskip("huggingface_hub")
  data = library.ModelCard((folder / "README.md").read_text()).data
  assert (data.library_name, data.pipeline_tag) == ("semiseg_jax", "image-segmentation")
  assert "jax" in data.tags and data.license is None


CONFIG = {**ABOUT, "model": {"name": "pspnet", "num_classes": 5, "normalization": "half_rgb"}}
EVALUATION = {
  "step": 7, "images": 20, "split": "val", "decided": {"name": "max"},
  "of_pixels": {"mean": {"iou": 0.25, "f1": None}, "iou": SCORES, "f1": SCORES},
}  # fmt: skip


def test_the_scores_of_an_evaluation_are_a_table():
  run = {"evaluation": EVALUATION, "result": {"best": {"step": 7, "score": 0.9}}}
  text = card.make_card({**CONFIG, "step": 7}, run, "me/mine")
  assert "| class | IoU | F1 |" in text and "| car | 50.0 | 50.0 |" in text
  assert "| **mean** | 25.0 | - |" in text and "20 images (`val`, decided by `max`)" in text
  assert 'load("hf://me/mine")' in text and "90.0" not in text


def test_scores_of_another_step_are_left_out():
  run = {"evaluation": EVALUATION, "result": {"best": {"step": 7, "score": 0.9}}}
  assert "## Scores" not in card.make_card({**CONFIG, "step": 8}, run)


def test_nothing_is_written_over(run, folder, tmp_path, capsys):
  for place, name in ((folder, "config.json"), (run[0], "config.json")):
    assert convert(run[0], "--hub", place) == 1
    assert f"holds {name} already: name another directory for --hub" in capsys.readouterr().err
  (tmp_path / "best").mkdir()
  assert convert(run[0], "--hub", tmp_path) == 1
  assert "holds best already" in capsys.readouterr().err
  assert sorted(path.name for path in tmp_path.iterdir()) == ["best"]


def test_a_damaged_result_is_named(run, tmp_path):
  write_json(tmp_path / "config.json", {})
  (tmp_path / "result.json").write_text("{")
  with pytest.raises(ValueError, match=r"result\.json is damaged"):
    published.run_of(tmp_path)


MODEL = {"name": "deeplabv3p", "num_classes": 5, "normalization": "imagenet"}
WRONG = {
  "names": ({"class_names": ["a"]}, "has 1 class_names and 5 colours for a network of 5 classes"),
  "numbers": ({"class_names": [1] * 5}, "class_names should be texts"),
  "no names": ({"class_names": None}, "doesn't say class_names"),
  "colours": ({"palette": [[0, 0, 300]] * 5}, "palette a list such as"),
  "text": ({"model": "deeplab"}, "doesn't say model"),
  "no network": ({"model": {"num_classes": 5}}, r"doesn't say model\.name: it is no network of"),
  "unknown": ({"model": {**MODEL, "name": "deeplabv9"}}, "describes no network: .*did you mean"),
  "trunk": ({"model": {**MODEL, "trunk": 3}}, "describes no network"),
  "wider": ({"model": {**MODEL, "trunk": {"name": "resnet18", "width": 8}}}, "doesn't fit config"),
}


@pytest.mark.parametrize(("values", "message"), WRONG.values(), ids=WRONG)
def test_a_config_that_is_wrong(values, message, changed):
  with pytest.raises(ValueError, match=rf"copy.*{message}"):
    trained_network(changed(**values))


def test_arrays_of_another_network(changed, run):
  model = {**run[2], "heads": {}}
  with pytest.raises(ValueError, match=r"representation.* is in one of them alone"):
    trained_network(changed(model=model))
  assert run[2]["heads"]


def test_folders_of_something_else(changed):
  copy = changed()
  content = (copy / "model.safetensors").read_bytes()
  (copy / "model.safetensors").write_bytes(content[: len(content) // 2])
  with pytest.raises(ValueError, match=r"model\.safetensors can't be read as safetensors"):
    trained_network(copy)
  write_json(copy / "config.json", {"architectures": ["Segformer"], "id2label": {"0": "wall"}})
  with pytest.raises(ValueError, match=r"doesn't say model.*it is no network of semiseg_jax"):
    trained_network(copy)
  (copy / "config.json").write_text("{")
  with pytest.raises(ValueError, match=r"config\.json is damaged"):
    trained_network(copy)
  (copy / "config.json").unlink()
  with pytest.raises(FileNotFoundError, match=r"no trained network in .*model\.safetensors"):
    trained_network(copy)


def test_without_safetensors_there_is_one_line(folder, monkeypatch):
  monkeypatch.setitem(sys.modules, "safetensors", None)
  with pytest.raises(ImportError, match=r"needs safetensors: pip install 'semiseg_jax\[hub\]'"):
    trained_network(folder)


def test_another_network_of_the_method(run, folder):
  for place in (run[0], folder):
    assert trained_network(place, name="teacher")[2]["network"] == "teacher"
    with pytest.raises(ValueError, match=r"holds its teacher, .* and not its student"):
      trained_network(place, name="student")


class Uploads:
  """A stand-in for the hub's API."""

  sent: list

  def create_repo(self, repo, exist_ok):
    assert exist_ok
    return f"https://hub/{repo}"

  def upload_folder(self, *, repo_id, folder_path, allow_patterns):
    self.sent.append((repo_id, folder_path, sorted(allow_patterns)))


def test_it_is_sent_to_the_hub(run, folder, tmp_path, monkeypatch, capsys):
  library = pytest.importorskip("huggingface_hub")
  monkeypatch.setattr(library, "HfApi", Uploads)
  monkeypatch.setattr(Uploads, "sent", [], raising=False)
  assert convert(run[0], "--hub", tmp_path / "hub", "--push", "me/mine") == 0
  assert Uploads.sent == [("me/mine", tmp_path / "hub", sorted(published.FILES))]
  assert "sent to https://hub/me/mine" in capsys.readouterr().out
  assert 'load("hf://me/mine")' in (tmp_path / "hub" / "README.md").read_text()
  assert convert(folder, "--push", "me/mine") == 0
  assert Uploads.sent[1][:2] == ("me/mine", folder)


def refusals() -> dict:
  errors = pytest.importorskip("huggingface_hub").errors
  wrong = lambda kind: kind.__new__(kind, "refused\nat length")
  return {
    "HF_TOKEN doesn't allow to write": wrong(errors.RepositoryNotFoundError),
    "set HF_TOKEN to a token that may write": errors.LocalTokenNotFoundError("none"),
    "the hub can't be reached": errors.HTTPError("no route\nat all"),
    "me/mine: refused": errors.HFValidationError("refused\nat length"),
  }


def test_what_the_hub_refuses_is_said_in_one_line(folder, monkeypatch):
  library = pytest.importorskip("huggingface_hub")
  for message, error in refusals().items():

    def refuse(*_, error=error, **__):
      raise error

    monkeypatch.setattr(library.HfApi, "create_repo", refuse)
    with pytest.raises((OSError, ValueError), match=message) as raised:
      hub.push(folder, published.FILES, "me/mine")
    assert "\n" not in str(raised.value)


def test_where_nothing_can_be_sent(run, tmp_path, monkeypatch, capsys):
  hub_flag = ("--hub", tmp_path / "hub")
  for flags, message in {
    ("--push", "me/mine"): "--push sends what --hub=FOLDER writes",
    (*hub_flag, "--push", "mine"): "--push='mine' should be ORG/REPO",
  }.items():
    assert convert(run[0], *flags) == 1
    assert message in capsys.readouterr().err
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  assert convert(run[0], *hub_flag, "--push", "me/mine") == 1
  assert "needs pip install 'semiseg_jax[hub]'" in capsys.readouterr().err
  assert not (tmp_path / "hub").exists()


def test_a_repository_is_read_as_its_folder(folder, run, monkeypatch):
  asked = []

  def fetch(reference: str) -> pathlib.Path:
    asked.append(reference)
    return folder / reference.rpartition("/")[2]

  monkeypatch.setattr(hub, "fetch", fetch)
  for reference in ("hf://me/mine", "hf://me/mine@v1/"):
    variables, *_ = trained_network(reference)
    jax.tree.map(np.testing.assert_array_equal, variables, run[1])
  assert asked[1:3] == ["hf://me/mine/model.safetensors", "hf://me/mine@v1/config.json"]
  assert not any(map(hub.is_repository, ("hf://me", "hf://me/mine/a.pth", "me/mine")))
