"""`python -m semiseg_jax convert`: files into checkpoints that work, and back again."""

import jax
import numpy as np
import pytest
from PIL import Image

from semiseg_jax import __main__ as program
from semiseg_jax.commands import convert as command
from semiseg_jax.commands import run
from semiseg_jax.convert import families, files
from semiseg_jax.convert.assign import tensors_of
from semiseg_jax.convert.checkpoint import save_network, trained_network
from semiseg_jax.convert.weights import completed
from tests.convert.test_assign import MODELS, RECORDED, SELECTORS, ZOO, make

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

ORIGINALS = [*(name for name in MODELS if name != "semiseg_jax"), *RECORDED]


def convert(*args) -> int:
  return program.main(["convert", *map(str, args)])


class Module(torch.nn.Module):
  """A stand-in for an original's model: registers exactly the tensors of a state dict."""

  def __init__(self, tensors: dict[str, np.ndarray]):
    super().__init__()
    for key, tensor in tensors.items():
      *path, name = key.split(".")
      module = self
      for part in path:
        if part not in dict(module.named_children()):
          module.add_module(part, torch.nn.Module())
        module = getattr(module, part)
      module.register_buffer(name, torch.zeros(tensor.shape, dtype=torch.from_numpy(tensor).dtype))


@pytest.fixture
def originals(tmp_path):
  """A function: the file of an original's training, and its tensors."""

  def write(name: str):
    model, variables = make(name)
    family = families.named(name)
    tensors = tensors_of(family, variables)
    counters = {k: np.array(9) for k in tensors if k.endswith("num_batches_tracked")}
    tensors |= counters
    state = {f"module.{key}": torch.from_numpy(np.array(x)) for key, x in tensors.items()}
    config = {"dataset": "cityscapes", "training": {"pretraining": "imagenet"}}
    content = {"model": state, "optimizer": {"lr": 0.1}, "config": config}
    torch.save(content, tmp_path / f"{name}.pth")
    return tmp_path / f"{name}.pth", tensors, (model, variables)

  return write


@pytest.mark.parametrize("name", ORIGINALS)
def test_in_and_out_again(name, originals, tmp_path, capsys):
  path, tensors, (model, variables) = originals(name)
  out, back = tmp_path / "out", tmp_path / "back.pth"
  unsaid = ("--normalization", model["normalization"]) if name in ZOO else ()
  assert convert(path, "--out", out, "--verify", *unsaid) == 0
  printed = capsys.readouterr().out
  assert families.named(name).title in printed and "optimizer" in printed
  assert "come back bit for bit" in printed and "wrong: " not in printed
  restored, _, about = trained_network(out)
  jax.tree.map(np.testing.assert_array_equal, restored, variables)
  assert completed({**about["model"], "normalization": model["normalization"]}) == model
  listed = (out / "conversion.tsv").read_text().splitlines()[1:]
  assert {line.split("\t")[1] for line in listed} == set(tensors)

  assert convert(out, "--to_torch", back) == 0
  assert families.named(name).title in capsys.readouterr().out
  original = Module(tensors)
  original.load_state_dict(torch.load(back, weights_only=True), strict=True)
  for key, tensor in original.state_dict().items():
    np.testing.assert_array_equal(tensor.numpy(), tensors[key], strict=True)


def test_one_of_two_networks(tmp_path, capsys):
  """UniMatch V2 keeps both in a file; either is converted, and the report says which."""
  states = [
    tensors_of(families.named("unimatch_v2"), make("unimatch_v2", seed=i)[1]) for i in (1, 2)
  ]
  model, average = ({k: torch.from_numpy(np.array(x)) for k, x in s.items()} for s in states)
  content = {"model": model, "model_ema": average, "previous_best": np.float64(61.2), "epoch": 3}
  torch.save(content, tmp_path / "best.pth")
  for flags, place, tensors in (
    ((), "model in it, beside model_ema", states[0]),
    (("--which", "teacher"), "model_ema in it, beside model", states[1]),
    (("--which", "model_ema"), "model_ema in it, beside model", states[1]),
  ):
    assert convert(tmp_path / "best.pth", *flags, "--to_torch", tmp_path / "one.pth") == 0
    printed = capsys.readouterr().out
    assert f"best.pth ({place}), UniMatch V2's DPT: " in printed and "previous_best" in printed
    written = torch.load(tmp_path / "one.pth", weights_only=True)
    for key, x in tensors.items():
      np.testing.assert_array_equal(written[key].numpy(), x)
  assert convert(tmp_path / "best.pth", "--which", "swa") == 1
  assert "no network called swa, but model, model_ema: say which" in capsys.readouterr().err


def test_arrays_in_wrong_places_do_not_verify(originals, monkeypatch, capsys):
  path, *_ = originals("dst_cbc")
  right = command.convert

  def swapped(weights, **kwargs):
    tensors = dict(weights.tensors)
    one, other = (f"backbone.layer3.1.conv{i}.weight" for i in (1, 2))
    tensors[one], tensors[other] = tensors[other], tensors[one]
    return right(weights._replace(tensors=tensors), **kwargs)

  monkeypatch.setattr(command, "convert", swapped)
  assert convert(path, "--verify") == 1
  assert "wrong: tensors that come back changed: backbone.layer3" in capsys.readouterr().out


def test_our_own_format_keeps_what_no_original_has(tmp_path, capsys):
  model, variables = make("semiseg_jax")
  save_network(
    tmp_path / "in", variables, model, {"class_names": list("abcde"), "palette": [[0, 0, 9]] * 5}
  )
  file, out = tmp_path / "own.safetensors", tmp_path / "out"
  assert convert(tmp_path / "in", "--to_torch", file) == 0
  assert convert(file, "--out", out) == 0
  restored, _, about = trained_network(out)
  jax.tree.map(np.testing.assert_array_equal, restored, variables)
  assert about["model"] == model and about["class_names"] == list("abcde")
  assert about["palette"][0] == [0, 0, 9]
  for weights in (file, out):
    assert convert(weights, "--verify") == 0
    assert "would not be seen here" in capsys.readouterr().out


def test_a_converted_network_predicts_without_a_config(originals, tmp_path):
  path, *_ = originals("reco")
  out, pictures = tmp_path / "out", tmp_path / "pictures"
  names = "road,tree,sky,car,person"
  assert convert(path, "--out", out, "--class_names", names) == 0
  pictures.mkdir()
  Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(pictures / "one.png")
  written = run.predict(None, out, str(pictures), None)
  assert Image.open(written / "one.png").size == (50, 40)
  assert trained_network(out)[2]["class_names"] == names.split(",")


def test_the_coco_file_as_each_original_uses_it(originals, tmp_path):
  path, *_ = originals("advsemiseg")
  for number, (name, normalization) in enumerate(
    [("deeplabv2", "coco"), ("deeplabv2_coco", "cityscapes_bgr")]
  ):
    out = tmp_path / str(number)
    flags = ("--model", name, "--normalization", normalization)
    assert convert(path, "--out", out, *flags, "--verify") == 0
    model = trained_network(out)[2]["model"]
    assert (model["name"], model["normalization"]) == (name, normalization)
    assert model["classifier_branches"] == 2


def test_another_number_of_classes(originals, tmp_path, capsys):
  path, *_ = originals("dst_cbc")
  assert convert(path, "--num_classes", 3) == 1
  assert "reinit_classifier" in capsys.readouterr().err
  flags = ("--num_classes", 3, "--reinit_classifier")
  assert convert(path, *flags, "--out", tmp_path / "out") == 0
  printed = capsys.readouterr().out
  assert "skipped" in printed and "missing" in printed
  assert len(trained_network(tmp_path / "out")[2]["class_names"]) == 3
  assert convert(path, *flags, "--verify") == 0
  assert "all in use, but for those of another number of classes" in capsys.readouterr().out


def test_what_is_wrong_is_said_in_a_sentence(originals, tmp_path, capsys):
  path, *_ = originals("reco")

  def error(*args):
    assert convert(*args) == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    return printed

  assert "no_such.pth" in error(tmp_path / "no_such.pth")
  assert "did you mean 'reco'" in error(path, "--family", "recoo")
  assert "4 class names were given for a network of 5" in error(path, "--class_names", "a,b,c,d")
  assert "no prepared dataset" in error(path, "--dataset", "pascal", "--data_dir", tmp_path)
  assert "should be HEIGHTxWIDTH" in error(path, "--export", tmp_path / "x", "--size", "512")
  assert "did you mean 'imagenet'" in error(path, "--normalization", "imagnet")
  assert convert(path, "--out", tmp_path / "out") == 0
  assert "holds a network already" in error(path, "--out", tmp_path / "out")
  assert "says itself what its network is: leave out name" in error(
    tmp_path / "out", "--model", "deeplabv2"
  )
  _, variables = make("memory_bank", name="deeplabv2_coco", **SELECTORS)
  bank = tensors_of(families.named("memory_bank"), variables)
  files.write(tmp_path / "bank.pth", bank, {})
  assert "give --model" in error(tmp_path / "bank.pth")
