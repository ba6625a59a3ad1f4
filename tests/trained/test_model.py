"""A trained network from Python: the same labels as from the shell, whatever it is given."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import semiseg_jax
from semiseg_jax import __main__ as program
from semiseg_jax.commands import run
from semiseg_jax.convert.checkpoint import save_network
from semiseg_jax.evaluation import rank_labels
from semiseg_jax.evaluation.exports import VOC_CLASSES
from semiseg_jax.evaluation.predict import Files
from semiseg_jax.evaluation.predictor import Inference, read_inference
from semiseg_jax.input.decode import DataError
from semiseg_jax.models.network import Variables
from semiseg_jax.trained.model import Model
from semiseg_jax.training.choices import choose
from tests.command_line import parsed
from tests.convert.test_assign import make
from tests.tiny import Given

pytest.importorskip("safetensors")

NAMES, PALETTE = ["road", "sky", "car", "tree", "person"], [[50 * i, 9, 200] for i in range(5)]
ABOUT = {"class_names": NAMES, "palette": PALETTE}
RGB = np.random.default_rng(0).integers(0, 256, (21, 35, 3), np.uint8)
GREY = np.stack([RGB[..., 0]] * 3, -1)
WINDOWS = "mode=sliding,window=(16,16),flip=False"


def saved(folder: pathlib.Path, family: str = "dst_cbc") -> pathlib.Path:
  model, variables = make(family)
  # so that every class is somewhere the most likely
  save_network(folder, jax.tree.map(lambda x: x * 3, variables), model, ABOUT)
  return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return saved(tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="module")
def model(workdir):
  return semiseg_jax.load(workdir)


@pytest.fixture(scope="module")
def result(model):
  return model.predict(RGB)


@pytest.fixture(scope="module")
def shell(workdir, tmp_path_factory):
  """What --mode=predict writes: a function, from a picture's name and an ending to the array."""
  pictures = tmp_path_factory.mktemp("pictures")
  Image.fromarray(RGB).save(pictures / "rgb.png")
  Image.fromarray(GREY[..., 0]).save(pictures / "grey.png")
  Image.fromarray(RGB[:9, :34]).save(pictures / "odd.png")
  options = {"files": Files(probabilities=True, overlays=True, confidence=True)}
  out = run.predict(None, workdir, str(pictures), str(pictures / "out"), **options)

  def written(name: str, ending: str = ".png") -> np.ndarray:
    path = out / f"{name}{ending}"
    return np.load(path)["probabilities"] if ending == ".npz" else np.asarray(Image.open(path))

  written.pictures = pictures
  return written


def test_a_result_has_what_the_shell_writes(result, shell):
  np.testing.assert_array_equal(result.labels, shell("rgb"))
  assert result.labels.dtype == np.uint8 and len(np.unique(result.labels)) > 1
  assert result.probabilities.dtype == np.float32
  np.testing.assert_array_equal(result.probabilities.astype(np.float16), shell("rgb", ".npz"))
  np.testing.assert_allclose(result.probabilities.sum(-1), 1, rtol=1e-5)
  np.testing.assert_allclose(result.confidence, result.probabilities.max(-1), rtol=1e-6)
  np.testing.assert_array_equal(np.asarray(result.overlay()), shell("rgb", "_overlay.png"))
  assert result.class_names == tuple(NAMES) and result.palette.tolist() == PALETTE


def test_whatever_the_picture_is(model, shell):
  alpha = Image.fromarray(RGB)
  alpha.putalpha(77)
  every = [
    shell.pictures / "rgb.png",
    Image.fromarray(RGB),
    alpha,
    np.asarray(alpha),
    str(shell.pictures / "grey.png"),
    GREY[..., 0],
    Image.fromarray(GREY[..., 0]),
    RGB[:9, :34],
  ]
  names = ["rgb"] * 4 + ["grey"] * 3 + ["odd"]
  for found, name in zip(model.predict(every), names, strict=True):
    np.testing.assert_array_equal(found.labels, shell(name))
  assert model.predict([]) == []


def brightest(inference: Inference) -> Model:
  """A model that says which colour channel a pixel is strongest in, by levels below 3."""
  network = Given(lambda params, batch_stats, images: images * params)
  variables = Variables(jnp.full(3, 3 / 255), None)
  return Model(
    "brightest", ("r", "g", "b"), np.eye(3, dtype=np.uint8), network, variables, {}, inference
  )


@pytest.mark.parametrize("inference", [Inference(batch=2), read_inference(WINDOWS)])
def test_many_pictures_keep_their_order(inference):
  pictures = [RGB, RGB[:, :15], RGB[::-1], RGB[:5, :33], RGB[1:]]
  for picture, found in zip(pictures, brightest(inference).predict(pictures), strict=True):
    np.testing.assert_array_equal(found.image, picture)
    np.testing.assert_array_equal(found.labels, picture.argmax(-1))


def test_a_program_is_compiled_once(model, result):
  compiled = model._predictor._seen._cache_size()
  model.predict([RGB[:20], RGB[3:, :33]])
  assert model._predictor._seen._cache_size() == compiled


def test_how_pictures_are_seen_is_read_as_from_the_shell(workdir):
  wanted = Inference(mode="sliding", window=(16, 16), flip=False)
  for given in (WINDOWS, wanted):
    assert semiseg_jax.load(workdir, inference=given).inference == wanted


def test_saved_as_the_shell_does(result, shell, tmp_path):
  beside = {"overlay": True, "confidence": True, "probabilities": True}
  path = result.save(tmp_path / "deep" / "rgb.png", **beside)
  assert path == tmp_path / "deep" / "rgb.png"
  for ending in (".png", "_overlay.png", "_confidence.png"):
    np.testing.assert_array_equal(
      np.asarray(Image.open(path.with_name(f"rgb{ending}"))), shell("rgb", ending)
    )
  assert Image.open(path).getpalette()[:15] == np.ravel(PALETTE).tolist()
  assert len(list(path.parent.iterdir())) == 4
  for wrong in (tmp_path, tmp_path / "labels.jpg"):
    with pytest.raises(ValueError, match=r"should be a file that ends in \.png"):
      result.save(wrong)
  with pytest.raises(ValueError, match=f"VOC's {len(VOC_CLASSES)} classes"):
    result.save(path, format="voc")


def test_show_opens_the_overlay(result, monkeypatch):
  shown = []
  monkeypatch.setattr(Image.Image, "show", lambda image: shown.append(image))
  result.show()
  np.testing.assert_array_equal(np.asarray(shown[0]), np.asarray(result.overlay()))


def test_rankdice_gives_every_pixel_one_class(model):
  three = brightest(Inference())
  found = three.predict(RGB, decide="rankdice")
  np.testing.assert_array_equal(found.labels, rank_labels(found.probabilities[None])[0])
  assert found.labels.dtype == np.uint8 and (found.labels != RGB.argmax(-1)).any()
  chosen = np.take_along_axis(found.probabilities, found.labels[..., None], -1)[..., 0]
  np.testing.assert_array_equal(found.confidence, chosen)
  unsure = three.predict(RGB // 255, decide="rankdice")  # no class reaches a half anywhere
  np.testing.assert_array_equal(unsure.labels, (RGB // 255).argmax(-1))
  with pytest.raises(ValueError, match="decide='best': choose from 'max', 'rankdice'"):
    model.predict(RGB, decide="best")


def test_what_is_no_picture_is_said_before_anything_is_seen(model, monkeypatch):
  monkeypatch.setitem(model.__dict__, "_predictor", None)
  with pytest.raises(DataError, match="the picture is an array of float64"):
    model.predict(RGB / 255)
  with pytest.raises(DataError, match="picture 1 is an array of shape"):
    model.predict([RGB, RGB[None]])
  with pytest.raises(FileNotFoundError, match="there is no file none"):
    model.predict("none.png")


def test_one_network_from_every_place(workdir, model, result, tmp_path):
  hub, file = tmp_path / "hub", tmp_path / "weights.safetensors"
  flags = [f"--hub={hub}", f"--to_torch={file}", "--family=dst_cbc"]
  assert program.main(["convert", str(workdir), *flags]) == 0
  assert program.main(["convert", str(hub), f"--out={tmp_path / 'converted'}"]) == 0
  for place in (hub, str(hub), tmp_path / "converted", file):
    found = semiseg_jax.load(place)
    jax.tree.map(np.testing.assert_array_equal, found.variables, model.variables)
    assert len(found.class_names) == 5 and found.palette.shape == (5, 3)
    if place != file:
      assert found.class_names == model.class_names
  np.testing.assert_array_equal(semiseg_jax.load(hub).predict(RGB).labels, result.labels)


def test_what_is_no_network(workdir, tmp_path):
  (tmp_path / "notes.txt").write_text("nothing")
  for place, options, error, message in (
    (tmp_path / "none", {}, FileNotFoundError, "there is no file or folder .*none"),
    (tmp_path, {}, FileNotFoundError, "no trained network in .*train first"),
    (tmp_path / "notes.txt", {}, ValueError, "notes.txt is a text, not weights"),
    ("hf://org", {}, ValueError, "should be hf://ORG/REPO"),
    (workdir, {"network": "teacher"}, ValueError, "holds its student, .*not its teacher"),
    (workdir, {"inference": "mode=slide"}, ValueError, "inference.mode='slide': choose from"),
    (workdir, {"inference": "sliding"}, ValueError, "inference='sliding' should be like"),
    (workdir, {"dtype": "float16"}, ValueError, "dtype='float16': choose from"),
    (saved(tmp_path / "c", "torchvision_resnet"), {}, ValueError, "classifies whole images"),
  ):
    with pytest.raises(error, match=message):
      semiseg_jax.load(place, **options)
  with pytest.raises(ValueError, match="classifies whole images"):
    run.predict(None, tmp_path / "c", str(tmp_path), None)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
  """A folder of six pictures with masks, of two sizes; 9 is no label. The second is held out."""
  root = tmp_path_factory.mktemp("labelled")
  rng = np.random.default_rng(1)
  for folder in ("images", "masks"):
    (root / folder).mkdir()
  for i in range(6):
    mask = rng.choice(np.uint8([0, 1, 2, 9]), (21, 35 - i % 2))
    Image.fromarray(RGB[:, : mask.shape[1]]).save(root / "images" / f"{i}.png")
    Image.fromarray(mask).save(root / "masks" / f"{i}.png")
  (root / "dataset.toml").write_text(f"class_names = {NAMES}\nignore_index = 9\n")
  return root


def test_scores_are_those_of_the_labels(labelled):
  model = brightest(Inference())
  found = model.evaluate(labelled / "images", labelled / "masks", ignore_index=9)
  hits = labelled_pixels = 0
  for i in range(6):
    mask = np.asarray(Image.open(labelled / "masks" / f"{i}.png"))
    labels = np.asarray(Image.open(labelled / "images" / f"{i}.png")).argmax(-1)
    hits += (labels == mask)[mask != 9].sum()
    labelled_pixels += (mask != 9).sum()
  assert found["accuracy"] == pytest.approx(hits / labelled_pixels)
  assert found["images"] == 6 and set(found["of_pixels"]["iou"]) == {"r", "g", "b"}


def test_a_folder_is_scored_as_the_command_does(model, labelled, workdir):
  found = model.evaluate(str(labelled), classes="road,sky")
  assert found["images"] == 1 and found["classes_of_interest"] == ["road", "sky"]
  config = parsed("folder_reco.py:size=small", f"--config.data.root={labelled}")
  choose(config, "model", "deeplabv2")
  config.update_from_flattened_dict(
    {"model.trunk.name": "resnet18", "model.trunk.width": 4, "model.classifier_branches": 2,
     "evaluation.size": (32, 64), "evaluation.batch": 8, "evaluation.classes": "road,sky"}
  )  # fmt: skip
  run.evaluate(config, workdir)
  told = json.loads((workdir / "evaluation.json").read_text())
  assert told == {"step": 0, "network": "student", **found}


def test_sets_that_cannot_be_scored(model, labelled, tmp_path):
  mask = np.zeros(RGB.shape[:2], np.uint8)
  (tmp_path / "dataset.toml").write_text('class_names = ["road"]')
  for given, message in (
    ((tmp_path,), r"knows 5 classes \(road, .*the dataset has 1 \(road\)"),
    ((labelled / "none",), "none is not a directory"),
    ((RGB,), "wants a folder, or pictures and their masks"),
    ((labelled / "images", "none"), "there is no folder of masks none"),
    ((labelled / "images", tmp_path), "no picture of .*images has a mask in"),
    ((labelled / "images", [mask]), "images is a folder: give its files as a list"),
    (([RGB], []), "1 pictures and 0 masks"),
    ((RGB, mask + 5), r"mask 0: label ids \[5\] are neither in 0\.\.4"),
    ((RGB, mask[:5]), "image and mask differ in size"),
  ):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
      model.evaluate(*given)
  with pytest.raises(ValueError, match="decide='best': choose from"):
    model.evaluate(RGB, mask, decide="best")


def test_importing_the_package_is_light():
  assert "load" in semiseg_jax.__all__
  with pytest.raises(AttributeError, match="has no attribute 'lode'"):
    _ = semiseg_jax.lode
