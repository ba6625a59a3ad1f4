"""Networks that start from given weights, and converted ones at work."""

import jax
import numpy as np
import pytest

from semiseg_jax import networks
from semiseg_jax.commands import run
from semiseg_jax.convert import families, files
from semiseg_jax.convert.assign import tensors_of
from semiseg_jax.convert.checkpoint import open_weights, save_network, trained_network
from semiseg_jax.input.build import open_data
from semiseg_jax.models.network import Variables
from semiseg_jax.trained.model import load
from semiseg_jax.training import setup
from semiseg_jax.training.choices import choose
from semiseg_jax.training.start import Start
from tests.convert.test_assign import REPRESENTATION, SELECTORS, SMALL, TOY, VIT, make

pytest.importorskip("safetensors")

RECO = {**SMALL, "name": "deeplabv3p", **REPRESENTATION}  # the tiny configs' network
COCO = {**TOY, "name": "deeplabv2_coco"}


def write(path, family="reco", model=RECO, num_classes=10) -> Variables:
  """A file of weights, and those weights."""
  variables, _ = networks.build({**model, "num_classes": num_classes}, seed=7)
  files.write(path, tensors_of(families.named(family), variables), {})
  return variables


def start(config) -> Start:
  return setup.build(config, open_data(config)).start


def test_training_starts_from_given_weights(tiny_config, tmp_path):
  path = tmp_path / "reco.safetensors"
  expected = write(path)
  started = start(tiny_config("reco", **{"model.init_from": str(path)}))
  jax.tree.map(np.testing.assert_array_equal, started.variables, expected)
  assert started.note.startswith(f"weights of {path}, ReCo's DeepLab: ")
  assert "fresh" not in started.note and "without use" not in started.note


@pytest.mark.slow
def test_a_run_from_weights_says_so_and_others_start_from_it(tiny_config, tmp_path, capsys):
  path = tmp_path / "imagenet.safetensors"
  write(path, "torchvision_resnet", {**TOY, "name": "resnet"}, num_classes=1000)
  config = tiny_config("supervised", steps=2, **{"model.init_from": str(path)})
  run.train(config, tmp_path / "run")
  # whatever the width of the terminal
  assert "torchvision's ResNet for ImageNet" in " ".join(capsys.readouterr().out.split())
  trained, _, about = trained_network(tmp_path / "run")
  assert about["model"]["normalization"] == "imagenet"
  after = start(tiny_config("supervised", **{"model.init_from": str(tmp_path / "run")}))
  jax.tree.map(np.testing.assert_array_equal, after.variables, trained)


@pytest.mark.parametrize("wanted", ["auto", "pascal_rgb"])
def test_inputs_are_normalised_as_the_weights_want_unless_told(wanted, tiny_config, tmp_path):
  path = tmp_path / "coco.safetensors"
  write(path, "advsemiseg", COCO)
  values = {"model.init_from": str(path), "model.normalization": wanted}
  config = tiny_config("memory_bank", **values)
  choose(config, "model", "deeplabv2_coco")
  started = start(config)
  name = "coco" if wanted == "auto" else wanted
  assert started.model["normalization"] == name
  assert started.network.normalization.bgr == (wanted == "auto")
  assert ("normalised as coco, here as pascal_rgb" in started.note) == (wanted != "auto")
  assert "projection_head" in started.note.partition("fresh: ")[2]


def test_another_number_of_classes(tiny_config, tmp_path):
  path = tmp_path / "reco.safetensors"
  write(path, num_classes=21)
  values = {"model.init_from": str(path)}
  with pytest.raises(ValueError, match=r"init_from.*21.*config\.model\.reinit_classifier=True"):
    start(tiny_config("reco", **values))
  started = start(tiny_config("reco", **values, **{"model.reinit_classifier": True}))
  assert "fresh: classifier" in started.note


def test_a_trunk_that_would_be_filled_in_part_is_refused(tiny_config, tmp_path):
  path = tmp_path / "imagenet.safetensors"
  write(path, "torchvision_resnet", {**TOY, "name": "resnet"}, num_classes=1000)
  values = {"model.init_from": str(path)}
  note = start(tiny_config("supervised", **values)).note
  assert "100 tensors taken, 2 without use (fc 2)" in note and "stay fresh: ASPP 30" in note
  config = tiny_config("supervised", **values, **{"model.trunk.name": "resnet34"})
  line = r"init_from='.*imagenet\.safetensors': the file fills the trunk in part: 80 of its 180.*18"
  with pytest.raises(ValueError, match=line):
    start(config)


def test_which_of_two_networks_a_run_starts_from(tiny_config, tmp_path):
  path = tmp_path / "two.safetensors"
  for name, seed in (("student", 3), ("teacher", 4)):
    variables, _ = networks.build({**RECO, "num_classes": 10}, seed=seed)
    tensors = tensors_of(families.named("reco"), variables)
    files.write(tmp_path / f"{name}.safetensors", tensors, {})
  both = {
    f"{name}.{key}": x
    for name in ("student", "teacher")
    for key, x in files.read(tmp_path / f"{name}.safetensors").content.items()
  }
  files.write(path, both, {})
  values = {"model.init_from": str(path), "model.which": "teacher"}
  started = start(tiny_config("reco", **values))
  jax.tree.map(np.testing.assert_array_equal, started.variables, variables)
  assert started.note.startswith(
    f"weights of {path} (teacher in it, beside student), ReCo's DeepLab"
  )
  values["model.which"] = None
  assert "(student in it, beside teacher)" in start(tiny_config("reco", **values)).note
  loaded = load(path, network="teacher").variables
  jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_weights_that_are_not_there(tiny_config, tmp_path):
  with pytest.raises(FileNotFoundError, match="no_such_file"):
    start(tiny_config("reco", **{"model.init_from": str(tmp_path / "no_such_file.pth")}))
  (tmp_path / "empty").mkdir()
  with pytest.raises(FileNotFoundError, match="no trained network in"):
    open_weights(str(tmp_path / "empty"))


def test_a_classifier_of_whole_images_is_not_trained(tiny_config):
  config = tiny_config("supervised")
  choose(config, "model", "resnet")
  with pytest.raises(ValueError, match=r"model\.name='resnet' classifies whole images"):
    start(config)


def test_a_converted_network_is_evaluated(tiny_config, tmp_path):
  config = tiny_config("reco")
  info = open_data(config).info
  variables = write(tmp_path / "reco.safetensors")
  model = open_weights(str(tmp_path / "reco.safetensors")).model
  about = {"class_names": list(info.class_names), "palette": info.palette.tolist()}
  save_network(tmp_path / "converted", variables, model, about)
  found = run.evaluate(config, tmp_path / "converted")
  assert found["step"] == 0 and found["network"] == "student"
  with pytest.raises(ValueError, match="holds a network already"):
    save_network(tmp_path / "converted", variables, model, about)


def test_unknown_inputs_have_to_be_named(tiny_config, tmp_path):
  path = tmp_path / "bank.safetensors"
  write(path, "memory_bank", {**COCO, **SELECTORS})
  config = tiny_config("memory_bank", **{"model.init_from": str(path)})
  choose(config, "model", "deeplabv2_coco")
  with pytest.raises(ValueError, match=r"give config\.model\.normalization"):
    start(config)
  config.model.normalization = "pascal_bgr"
  assert "normalised as unknown, here as pascal_bgr" in start(config).note


def test_a_transformer_starts_from_its_release_and_is_known_by_its_config(tiny_config, tmp_path):
  """Under the decoder of a method that has another encoder; its lists come back as such."""
  config = tiny_config("reco")
  choose(config, "model.trunk", VIT["name"], **{key: x for key, x in VIT.items() if key != "name"})
  tensors = tensors_of(families.named("dinov2"), make("unimatch_v2")[1])
  config.model.init_from = str(tmp_path / "encoder.safetensors")
  files.write(tmp_path / "encoder.safetensors", tensors, {})
  started = start(config)
  assert "DINOv2's encoder" in started.note and "without use" not in started.note
  found = started.variables.params["trunk"]["cls_token"]
  np.testing.assert_array_equal(found, tensors["cls_token"])

  about = {"class_names": ["a"], "palette": [[0, 0, 0]]}
  save_network(tmp_path / "run", started.variables, dict(started.model), about)
  variables, *_ = trained_network(tmp_path / "run", config.model)
  jax.tree.map(np.testing.assert_array_equal, variables, started.variables)
  config.model.trunk.taps = (0, 1)
  with pytest.raises(ValueError, match=r"trained with config\.model\.trunk\.taps=\(0, 1, 2, 3\)"):
    trained_network(tmp_path / "run", config.model)


def test_a_network_that_needs_several_strides_refuses_a_transformer(tiny_config):
  config = tiny_config("supervised")
  choose(config, "model", "upernet")
  choose(config, "model.trunk", "dinov2_small")
  line = "'dinov2_small' has features of one stride alone, and this network needs others: take one"
  with pytest.raises(ValueError, match=line):
    start(config)
