"""Several scales against the original's recorded outputs."""

import numpy as np
import pytest
from scipy import ndimage

from semiseg_jax.evaluation import multiscale
from semiseg_jax.evaluation.inference import whole_reflected
from semiseg_jax.evaluation.multiscale import SCALES, Multiscale
from tests import golden
from tests.evaluation.test_sliding import CASE, NOTHING, image, recorded
from tests.tiny import Given

RECORDED = sorted(key for key in CASE if key.startswith("multiscale") and "flip" in key)
ZOOMS = sorted(key for key in CASE if key.startswith("zoom"))


AS_CODED = {"multiple": 1, "blank_edges": True}


def logits_of(network, images, **options):
  size = images.shape[1:3]
  found = Multiscale(network, lambda logits: logits, **options)(NOTHING, images)
  return np.asarray(found)[:, : size[0], : size[1]]


@pytest.mark.parametrize("key", RECORDED)
def test_recorded_logits(key):
  _, kind, name, flip = key.split("_")
  scales = (*SCALES, 2.25) if kind == "city" else SCALES
  network, images = Given(recorded), np.stack([image(name), 2 * image(name)])
  found = logits_of(network, images, scales=scales, flip=flip == "flip1", **AS_CODED)
  np.testing.assert_allclose(found[0], golden.nhwc(CASE[key]), rtol=1e-5, atol=1e-5)
  if kind == "default" and flip == "flip0":
    label = CASE[f"multiscale_{kind}_{name}_label"]
    np.testing.assert_array_equal(found[0].argmax(-1), label)
  assert np.abs(found[1] - found[0]).max() > 0.1  # every picture of a batch is its own


@pytest.mark.parametrize("key", ZOOMS)
def test_recorded_pictures(key):
  _, name, scale = key.split("_")
  expected = golden.nhwc(CASE[key])[0]
  found = scaled(image(name), float(scale.replace("p", ".")))
  assert found.shape[:2] == expected.shape[:2]
  np.testing.assert_allclose(found[..., :1], expected, atol=2e-5)


def scaled(picture, scale):
  size = picture.shape[:2]
  sizes = size, multiscale.scaled_size(size, scale)
  there, _ = multiscale._ways(*sizes, False, lambda size: size, blank_edges=True)
  return np.asarray(multiscale._resampled(picture[None], there))[0]


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (10, 1), (48, 50)])
@pytest.mark.parametrize("scale", [0.1, 0.5, 1.75])
def test_scaling_is_scipys(size, scale):
  picture = np.random.default_rng(0).normal(size=(*size, 3)).astype(np.float32)
  found = scaled(picture, scale)
  zoomed = [max(1, round(side * scale)) / side for side in size]
  expected = ndimage.zoom(picture, (*zoomed, 1), order=1, prefilter=False)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_only_as_coded_has_blank_edges():
  picture = np.ones((1, 48, 36, 3), np.float32)
  seen = lambda params, batch_stats, images: images
  find = lambda **options: logits_of(Given(seen), picture, scales=(1.75,), **options)
  assert find(**AS_CODED).min() < 0.1 and (find(multiple=1) == 1).all()


def test_one_scale_of_padded_pictures_is_the_whole_picture():
  def third(params, batch_stats, images):
    assert images.shape[1] % 32 == 0 and images.shape[2] % 32 == 0
    return images[:, ::3, 1::3]

  images = np.random.default_rng(0).integers(0, 256, (2, 45, 70, 3), np.uint8)
  expected = whole_reflected(Given(third), NOTHING, images.astype(np.float32))
  found = logits_of(Given(third), images, scales=(1.0,))
  np.testing.assert_allclose(found, expected, atol=1e-4)
  mirrored = whole_reflected(Given(third), NOTHING, images[:, :, ::-1].astype(np.float32))
  found = logits_of(Given(third), images, scales=(1.0,), flip=True)
  np.testing.assert_allclose(found, (expected + mirrored[:, :, ::-1]) / 2, atol=1e-4)


def test_pictures_of_similar_sizes_share_programs():
  compiled = []

  def see(params, batch_stats, images):
    compiled.append(images.shape[1:3])
    return images[:, ::2, ::2]

  sizes = [(33, 47), (40, 60), (64, 64), (50, 33)]
  program = Multiscale(Given(see), lambda logits: logits, flip=True)
  for size in sizes:
    program(NOTHING, np.zeros((1, *size, 3), np.uint8))
  shapes = set(compiled)
  assert len(shapes) <= len({(h, w) for h in range(32, 129, 32) for w in range(32, 129, 32)})
  before = len(compiled)
  program(NOTHING, np.zeros((1, 41, 59, 3), np.uint8))
  assert set(compiled[before:]) <= shapes
