"""Files for the benchmarks' servers."""

import numpy as np
import pytest
from PIL import Image

from data.cityscapes import builder as cityscapes
from data.pascal import builder as pascal
from semiseg_jax.evaluation.exports import CITYSCAPES_IDS, VOC_CLASSES, label_writer, voc_palette
from semiseg_jax.evaluation.predict import Files
from tests import golden

CITY, CITY_COLOURS = cityscapes.CLASS_NAMES, cityscapes.PALETTE
VOC, VOC_COLOURS = pascal.CLASS_NAMES, pascal.PALETTE
CONSTANTS = golden.load("segmentation_zoo/constants")


def every_class(count):
  return np.random.default_rng(0).permutation(np.arange(count).repeat(4)).reshape(count, 4)


def test_cityscapes_ids(tmp_path):
  label = every_class(19).astype(np.uint8)
  label_writer("cityscapes", CITY, CITY_COLOURS)(tmp_path / "a.png", label)
  with Image.open(tmp_path / "a.png") as written:
    assert written.mode == "L"
    ids = np.asarray(written)
  np.testing.assert_array_equal(ids, np.array(cityscapes.IDS)[label])
  known = dict(zip(CONSTANTS["cityscapes_id"], CONSTANTS["cityscapes_train_id"], strict=True))
  np.testing.assert_array_equal(np.vectorize(known.get)(ids), label)


def test_cityscapes_ids_go_by_name(tmp_path):
  label = np.uint8([[0, 1]])
  label_writer("cityscapes", ["car", "road"], CITY_COLOURS)(tmp_path / "a.png", label)
  assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[26, 7]]


def test_voc_files_are_as_its_annotations(tmp_path):
  label = every_class(21).astype(np.uint8)
  label_writer("voc", VOC, VOC_COLOURS)(tmp_path / "a.png", label)
  with Image.open(tmp_path / "a.png") as written:
    assert written.mode == "P"
    np.testing.assert_array_equal(np.asarray(written), label)
    assert np.reshape(written.getpalette(), (-1, 3)).tolist() == CONSTANTS["voc256"].tolist()
  np.testing.assert_array_equal(voc_palette()[:21], VOC_COLOURS)
  assert tuple(VOC) == VOC_CLASSES


def test_what_no_server_takes():
  with pytest.raises(ValueError, match="--format='city': choose from 'palette'"):
    label_writer("city", CITY, CITY_COLOURS)
  with pytest.raises(ValueError, match="Cityscapes scores no class aeroplane, bird"):
    label_writer("cityscapes", ["aeroplane", "bird", "bus"], VOC_COLOURS)
  with pytest.raises(ValueError, match="for VOC's 21 classes"):
    label_writer("voc", [*VOC[1:], VOC[0]], VOC_COLOURS)
  with pytest.raises(ValueError, match="one PNG a picture"):
    Files(format="cityscapes", overlays=True)


def test_the_ids_are_those_of_cityscapes_scripts():
  labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
  scored = {label.name: label.id for label in labels if label.trainId not in (255, -1)}
  assert scored == CITYSCAPES_IDS


def test_cityscapes_scripts_score_what_is_written(tmp_path, monkeypatch):
  tool = "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling"
  evaluation = pytest.importorskip(tool)
  rng = np.random.default_rng(0)
  truth = rng.integers(0, 19, (64, 128)).astype(np.uint8)
  label = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 19, truth.shape))
  scene = "bonn_000000_000019"
  write = label_writer("cityscapes", CITY, CITY_COLOURS)
  for folder in ("truth", "out"):
    (tmp_path / folder / "bonn").mkdir(parents=True)
  write(tmp_path / "truth" / "bonn" / f"{scene}_gtFine_labelIds.png", truth)
  write(tmp_path / "out" / "bonn" / f"{scene}_leftImg8bit.png", label.astype(np.uint8))
  args = evaluation.args
  values = {"predictionPath": str(tmp_path / "out"), "predictionWalk": None, "quiet": True}
  values |= {"evalInstLevelScore": False, "JSONOutput": False}
  for key, value in values.items():
    monkeypatch.setattr(args, key, value)
  files = [str(path) for path in (tmp_path / "truth").rglob("*.png")]
  predictions = [evaluation.getPrediction(args, file) for file in files]
  found = evaluation.evaluateImgLists(predictions, files, args)["classScores"]
  for number, name in enumerate(CITY):
    both = ((truth == number) & (label == number)).sum()
    assert found[name] == pytest.approx(both / ((truth == number) | (label == number)).sum())
