"""Networks are found under every wrapping that trainers put around them."""

import itertools

import numpy as np
import pytest

from semiseg_jax.convert import files
from semiseg_jax.convert.weights import read_weights
from semiseg_jax.convert.wrappers import choose, networks_in
from tests.convert.test_assign import state_of

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

STATE = {"conv1.weight": np.ones(3), "bn1.bias": np.zeros(2)}


def _is_network(tensors) -> bool:
  return "conv1.weight" in tensors


def _behind(prefix: str, state=STATE) -> dict:
  return {prefix + key: x for key, x in state.items()}


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_prefixes_in_any_order(depth):
  for parts in itertools.permutations(["_orig_mod", "module", "model", "net", "backbone"], depth):
    ((name, found),) = networks_in(_behind(".".join(parts) + "."), _is_network).items()
    assert name == ".".join(parts) and found.tensors.keys() == STATE.keys() and not found.beside


LIGHTNING = {
  "state_dict": {**_behind("model."), "criterion.weight": np.ones(3)},
  "epoch": 3,
  "optimizer_states": [{"state": {}}],
}
DEEP = {"checkpoint": {"model": {"state_dict": _behind("module.")}, "config": {"a": 1}}, "epoch": 1}
TRAINER = {
  "model": STATE,
  "optimizer": {"state": {"0": {"exp_avg": np.ones(3)}}},
  "history": np.ones(9),
}


@pytest.mark.parametrize(
  ("content", "name", "beside"),
  [
    (STATE, "", set()),
    ({**STATE, "iteration": 5}, "", {"iteration"}),
    (LIGHTNING, "state_dict.model", {"criterion", "epoch", "optimizer_states"}),
    (DEEP, "checkpoint.model.state_dict.module", {"config", "epoch"}),
    (TRAINER, "model", {"optimizer", "history"}),
    ({**_behind("module."), "class_weights": np.ones(3)}, "module", {"class_weights"}),
    (
      {"encoder": {"backbone": STATE}, "decoder": {"x": np.ones(2)}},
      "encoder.backbone",
      {"decoder"},
    ),
  ],
)
def test_nested_in_mappings_with_other_things_beside(content, name, beside):
  ((found_name, found),) = networks_in(content, _is_network).items()
  assert found_name == name
  assert found.tensors.keys() == STATE.keys() and found.beside.keys() == beside


def test_without_a_network():
  assert networks_in({"optimizer": {"lr": 0.1}, "x": np.ones(3)}, _is_network) == {}


PAIRS = [
  ("student", "teacher"),
  ("model", "model_ema"),
  ("model", "ema"),
  ("state_dict", "state_dict_ema"),
  ("model_state", "teacher_state"),
  ("semantic_net", "ema_model"),
  ("student.module", "teacher.module"),
]


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_of_two_the_student_unless_told(student, teacher):
  """Beside one another in mappings, or behind prefixes of one mapping."""
  nested = {teacher: STATE, student: STATE, "epoch": 3}
  flat = {**_behind(f"{teacher}."), **_behind(f"{student}.")}
  for content in (nested, flat, {"state_dict": flat}):
    found = networks_in(content, _is_network)
    assert len(found) == 2
    ends = lambda which, found=found: choose(found, which).removeprefix("state_dict.")
    assert ends(None) == ends("student") == student
    assert ends("teacher") == teacher
    if content is not nested:
      assert ends(teacher.partition(".")[0]) == teacher


def test_what_is_left_open_has_to_be_said():
  with pytest.raises(ValueError, match=r"several networks, branch1, branch2: say which by --which"):
    choose({"branch1": 0, "branch2": 0}, None)
  assert choose({"branch1": 0, "branch2": 0}, "branch2") == "branch2"
  with pytest.raises(ValueError, match="several networks, teacher, ema"):
    choose({"teacher": 0, "ema": 0}, None)
  assert choose({"teacher": 0}, None) == "teacher"
  with pytest.raises(ValueError, match=r"no network called teacher, but one without a name"):
    choose({"": 0}, "teacher")
  with pytest.raises(ValueError, match=r"several networks called student, but a, b, ema"):
    choose({"a": 0, "b": 0, "ema": 0}, "student")


def test_networks_of_a_file_are_known_by_their_family(tmp_path):
  """Beside a discriminator, an optimiser and a network that only averages."""
  state = {key: torch.from_numpy(np.array(x)) for key, x in state_of("reco").items()}
  half = {f"module.{key}": x / 2 for key, x in state.items()}
  other = {"conv1.weight": torch.ones(2, 3, 1, 1)}
  moments = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": np.float64(0.1)}]}
  content = {"model_D": other, "model": {"state_dict": state}, "model_ema": half}
  path = tmp_path / "latest"
  torch.save({**content, "optimizer": moments, "best": np.float32(61)}, path)
  weights = read_weights(str(path))
  origin = weights.about["origin"]
  assert (origin["network"], origin["others"]) == ("model.state_dict", ["model_ema.module"])
  assert {"best", "model_D", "optimizer"} <= set(origin["beside"])
  average = read_weights(str(path), which="teacher")
  assert weights.model == average.model
  for key, x in weights.tensors.items():
    if not key.endswith("num_batches_tracked"):
      np.testing.assert_allclose(average.tensors[key], x / 2)
  with pytest.raises(ValueError, match=rf"{path}: it holds no network called swa, but model"):
    read_weights(str(path), which="swa")


def test_files_in_which_no_network_is_known(tmp_path):
  path = tmp_path / "a.pth"
  for content, message in (
    ({"optimizer": {"lr": 0.1}, "epoch": 3}, "it holds no state dict, only: optimizer, epoch"),
    ({}, "it holds no state dict, only: nothing"),
    ({"model": {"a.b": torch.ones(2)}}, r"a\.pth: the keys \(a\.b, \.\.\.\) are those of no known"),
  ):
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
      read_weights(str(path))
  with pytest.raises(
    ValueError, match=r"a\.pth: it has no resnet_conv1\.weight: it is not of ReCo's"
  ):
    read_weights(str(path), family="reco")


@pytest.mark.parametrize(
  "config", ["a.yaml", ["x"], {"training": "long", "dataset": [1], "arch": {"args": 3}}]
)
@pytest.mark.parametrize("name", ["memory_bank", "c3_deeplabv3plus"])
def test_a_configuration_of_another_form_says_nothing(name, config, tmp_path):
  state = {key: torch.from_numpy(np.array(x)) for key, x in state_of(name).items()}
  torch.save({"model": state, "config": config, "about": "a text"}, tmp_path / "a.pth")
  assert read_weights(str(tmp_path / "a.pth")).model["num_classes"] == 5


def test_numbers_that_are_none_are_refused(tmp_path):
  tensors = state_of("reco")
  for key, value in (("resnet_bn1.weight", np.nan), ("classifier.3.bias", -np.inf)):
    tensors[key] = np.full_like(tensors[key], value)
  path = tmp_path / "a.safetensors"
  files.write(path, tensors, {})
  line = r"2 of \d+ tensors of .*a\.safetensors hold NaN or infinity \(.*resnet_bn1\.weight"
  with pytest.raises(ValueError, match=line):
    read_weights(str(path))
