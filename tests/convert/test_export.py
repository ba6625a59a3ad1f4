"""The exported program computes what prediction does, for any size, without this package."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax import networks
from semiseg_jax.convert import export
from semiseg_jax.evaluation.decide import argmax_with_confidence
from semiseg_jax.evaluation.inference import padded_size, whole
from semiseg_jax.models.resize import bilinear_matrix, resize_bilinear
from semiseg_jax.models.resnet import ResNetTrunk
from semiseg_jax.transforms.geometry import reflect_to

pytest.importorskip("flatbuffers")

CLASSES = 5
NAMES = [name for name, kind in networks.NETWORKS.items() if not kind.OF_IMAGES]
ABOUT = {"class_names": list("abcde"), "palette": [[0, 0, 0]] * CLASSES}


def make(name: str):
  """A network whose kernels are large enough for its classes to differ from pixel to pixel."""
  kind = networks.NETWORKS[name]
  trunk = "resnet18" if issubclass(ResNetTrunk, kind.TRUNKS) else kind.trunk.name
  model = {"name": name, "num_classes": CLASSES, "trunk": {"name": trunk, "width": 4}}
  variables, network = networks.build(model | {"normalization": "cityscapes_bgr"}, seed=3)
  rng = np.random.default_rng(0)

  def drawn(x):
    scale = np.sqrt(2 / np.prod(x.shape[:-1]))
    return rng.normal(0, scale, x.shape).astype(np.float32) if x.ndim == 4 else x

  return variables._replace(params=jax.tree.map(drawn, variables.params)), network


def pictures(count: int, height: int, width: int) -> np.ndarray:
  """Squares of random colours."""
  coarse = np.random.default_rng(height).integers(0, 256, (count, height, width, 3), np.uint8)
  return coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]


def load(data: bytes):
  return jax.export.deserialize(bytearray(data))


@pytest.mark.parametrize(
  "name",
  [pytest.param(n, marks=[] if n in ("deeplabv3p", "deeplabv2_coco") else pytest.mark.slow)
   for n in NAMES],
)  # fmt: skip
def test_one_program_for_every_size(name):
  variables, network = make(name)
  program = load(export.export_network(network, variables).serialize())
  assert program.platforms == ("cpu", "cuda", "tpu")
  for shape in ((1, 9, 40), (3, 71, 45)):
    assert_predicts(program, network, variables, pictures(*shape))


def assert_predicts(program, network, variables, images: np.ndarray) -> None:
  """The program says what prediction writes, picture by picture, and the label's probability."""
  label, confidence = jax.jit(program.call)(images)
  assert label.shape == confidence.shape == images.shape[:3]
  assert label.dtype == jnp.uint8 and confidence.dtype == jnp.float32
  assert np.ptp(confidence) > 0.01  # or the comparison says little
  height, width = images.shape[1:3]
  predict = jax.jit(lambda x: argmax_with_confidence(whole(network, variables, x[None])[0]))
  for image, found, share in zip(images, label, confidence, strict=True):
    predicted, probability = predict(reflect_to(image, padded_size((height, width))))
    assert np.sum(found != predicted[:height, :width]) <= 2  # a tie may go either way
    np.testing.assert_allclose(share, probability[:height, :width], atol=5e-5)


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
  program = export.export_network(network, variables, (12, 48))  # reflected more than once
  assert_predicts(program, network, variables, pictures(2, 12, 48))
  with pytest.raises(ValueError, match=r"shape\[1\].*12, 48.*called with.*48, 12"):
    program.call(pictures(2, 48, 12))
  with pytest.raises(ValueError, match="size 0x48: both sides must be at least 1"):
    export.export_network(network, variables, (0, 48))


def test_other_inputs_are_refused():
  variables, network = make("deeplabv2")
  program = export.export_network(network, variables)
  with pytest.raises(ValueError, match="expected uint8 and called with float32"):
    program.call(pictures(1, 64, 64).astype(np.float32))
  with pytest.raises(ValueError, match=r"expected \(b, h, w, 3\) and called with \(64, 64, 3\)"):
    program.call(pictures(1, 64, 64)[0])
  with pytest.raises(ValueError, match="Expected value >= 1 for dimension variable 'h'"):
    program.call(pictures(1, 0, 64))


PROGRAM = """
import sys
sys.modules["semiseg_jax"] = None  # as if it were not installed
import jax, numpy as np, pathlib
program = jax.export.deserialize(bytearray(pathlib.Path(sys.argv[1]).read_bytes()))
label, confidence = jax.jit(program.call)(np.load(sys.argv[2]))
np.savez(sys.argv[3], label=label, confidence=confidence)
"""


def test_the_file_runs_without_this_package(tmp_path):
  variables, network = make("deeplabv2")
  path = tmp_path / "model.jaxexport"
  export.write(path, network, variables, ABOUT)
  images = pictures(2, 50, 60)
  np.save(tmp_path / "in.npy", images)
  files = [str(tmp_path / name) for name in ("model.jaxexport", "in.npy", "out.npz")]
  subprocess.run([sys.executable, "-I", "-c", PROGRAM, *files], check=True, cwd=tmp_path)
  with np.load(tmp_path / "out.npz") as found:
    label, confidence = load(path.read_bytes()).call(images)
    np.testing.assert_array_equal(found["label"], label)
    np.testing.assert_allclose(found["confidence"], confidence, atol=1e-5)
  about = json.loads((tmp_path / "model.jaxexport.json").read_text())
  assert about["class_names"] == ABOUT["class_names"] and about["platforms"][2] == "tpu"
