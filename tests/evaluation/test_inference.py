"""Logits on the grid that is asked for, of pictures of any size."""

import jax
import numpy as np
import pytest

from semiseg_jax.contract import Variables
from semiseg_jax.evaluation import inference
from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.transforms import geometry
from tests.tiny import Given

NOTHING = Variables(None, None)
SHAPES = [(1, 1), (2, 1), (7, 70), (32, 64), (33, 31)]


def pictures(height, width):
  return np.random.default_rng(width).integers(0, 256, (2, height, width, 3), np.uint8)


def quarter(params, batch_stats, images):
  """Every fourth pixel."""
  assert images.shape[1] % 32 == 0 and images.shape[2] % 32 == 0
  return images[:, ::4, ::4].astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_reflection_on_the_host_and_on_the_device(shape):
  images, size = pictures(*shape), inference.padded_size(shape)
  expected = np.stack([geometry.reflect_to(image, size) for image in images])
  assert expected.shape[1:3] == size and all(side % inference.MULTIPLE == 0 for side in size)
  np.testing.assert_array_equal(inference.reflect_to(images, size), expected)


@pytest.mark.parametrize("align_corners", [True, False])
def test_logits_are_resized_as_the_network_has_it(align_corners):
  network, images = Given(quarter, align_corners), pictures(32, 64)
  for size in (None, (64, 128)):  # labels may be finer than images
    expected = resize_bilinear(quarter(*NOTHING, images), size or (32, 64), align_corners)
    found = inference.whole(network, NOTHING, images, size)
    np.testing.assert_array_equal(found, expected)


def test_any_size_known_or_not():
  network = Given(quarter)
  infer = jax.jit(lambda images: inference.whole_reflected(network, NOTHING, images))
  symbols = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, h, w, 3"), np.uint8)
  program = jax.export.export(infer)(symbols)
  for shape in ((7, 70), (33, 31)):
    images, size = pictures(*shape), inference.padded_size(shape)
    padded = np.stack([geometry.reflect_to(image, size) for image in images])
    expected = inference.whole(network, NOTHING, padded)[:, : shape[0], : shape[1]]
    np.testing.assert_allclose(infer(images), expected, atol=1e-4)
    np.testing.assert_allclose(program.call(images), expected, atol=1e-4)
