"""The exported program computes what prediction does, for any size, without this package."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.contract import build_network
from semiseg_jax.convert import export
from semiseg_jax.evaluation.predict import make_predict, pad_to_multiple
from semiseg_jax.models import networks
from semiseg_jax.models.resize import bilinear_matrix, resize_bilinear

pytest.importorskip("flatbuffers")

CLASSES = 5
NAMES = [name for name in networks.ORIGINALS if name != "resnet"]
ABOUT = {"class_names": list("abcde"), "palette": [[0, 0, 0]] * CLASSES}


def make(name: str):
  model = {"name": name, "num_classes": CLASSES, "backbone": "resnet18", "width": 4}
  return build_network({**model, "decoder_dim": 8, "normalization": "cityscapes_bgr"}, seed=3)


def pictures(count: int, height: int, width: int) -> np.ndarray:
  rng = np.random.default_rng(height)
  return rng.integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def load(data: bytes):
  return jax.export.deserialize(bytearray(data))


@pytest.mark.parametrize("name", NAMES)
def test_one_program_for_every_size(name):
  variables, network = make(name)
  program = load(export.export_network(network, variables).serialize())
  assert program.platforms == ("cpu", "cuda", "tpu")
  predict = make_predict(network, CLASSES)
  for count, height, width in ((1, 64, 64), (3, 71, 45)):
    images = pictures(count, height, width)
    label, confidence = program.call(images)
    assert label.shape == confidence.shape == (count, height, width)
    assert label.dtype == jnp.uint8 and confidence.dtype == jnp.float32
    for image, found, share in zip(images, label, confidence, strict=True):
      padded = pad_to_multiple(image, 32)
      expected = np.asarray(predict(*variables, padded))[:height, :width]
      assert (np.asarray(found) == expected).mean() > 0.999  # a tie may go either way
      logits = network(*variables, padded[None].astype(np.float32), train=False)[0].logits
      logits = resize_bilinear(logits, padded.shape[:2], align_corners=True)
      probs = jax.nn.softmax(logits)[0, :height, :width].max(-1)
      np.testing.assert_allclose(share, probs, atol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
def test_symbolic_sides_are_resized_as_known_ones(align_corners):
  resized = lambda x: resize_bilinear(x, (2 * x.shape[0] + 5, x.shape[1] - 1), align_corners)
  shape = jax.export.symbolic_shape("h, w, 2", constraints=["w >= 2"])
  traced = jax.export.export(jax.jit(resized))(jax.ShapeDtypeStruct(shape, np.float32))
  for height, width in ((7, 9), (1, 2), (33, 65)):
    x = np.random.default_rng(0).standard_normal((height, width, 2), np.float32)
    rows = bilinear_matrix(height, 2 * height + 5, align_corners)
    columns = bilinear_matrix(width, width - 1, align_corners)
    expected = np.einsum("Hh,hwc,Ww->HWc", rows, x, columns)
    np.testing.assert_allclose(traced.call(x), expected, atol=2e-6)


def test_a_fixed_size_takes_that_size_alone():
  variables, network = make("deeplabv3p")
  program = load(export.export_network(network, variables, (40, 48)).serialize())
  free = export.export_network(network, variables)
  images = pictures(2, 40, 48)
  np.testing.assert_allclose(program.call(images)[1], free.call(images)[1], atol=1e-5)
  with pytest.raises(ValueError, match=r"48|40"):
    program.call(pictures(2, 48, 40))


def test_other_inputs_are_refused():
  variables, network = make("deeplabv2")
  program = export.export_network(network, variables)
  with pytest.raises(ValueError, match=r"float32.*uint8|uint8.*float32"):
    program.call(pictures(1, 64, 64).astype(np.float32))
  with pytest.raises(ValueError, match=r"h >= 32|>= 32"):
    program.call(pictures(1, 31, 64))


PROGRAM = """
import sys
sys.modules["semiseg_jax"] = None  # as if it were not installed
import jax, numpy as np, pathlib
program = jax.export.deserialize(bytearray(pathlib.Path(sys.argv[1]).read_bytes()))
label, confidence = program.call(np.load(sys.argv[2]))
np.savez(sys.argv[3], label=label, confidence=confidence)
"""


def test_the_file_runs_without_this_package(tmp_path):
  variables, network = make("deeplabv3p")
  path = tmp_path / "model.jaxexport"
  export.write(path, network, variables, ABOUT)
  images = pictures(2, 50, 60)
  np.save(tmp_path / "in.npy", images)
  files = [str(tmp_path / name) for name in ("model.jaxexport", "in.npy", "out.npz")]
  subprocess.run([sys.executable, "-I", "-c", PROGRAM, *files], check=True, cwd=tmp_path)
  with np.load(tmp_path / "out.npz") as found:
    label, confidence = export.export_network(network, variables).call(images)
    np.testing.assert_array_equal(found["label"], label)
    np.testing.assert_allclose(found["confidence"], confidence, atol=1e-5)
  about = json.loads((tmp_path / "model.jaxexport.json").read_text())
  assert about["class_names"] == ABOUT["class_names"] and about["platforms"][2] == "tpu"
