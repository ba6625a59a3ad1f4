import functools

import jax
import numpy as np
import pytest

from semiseg_jax import networks
from semiseg_jax.models.layers import Maker, SeparableConv
from semiseg_jax.models.trunk import Style
from semiseg_jax.models.xception import XceptionTrunk
from tests.models import parts


def trunk(output_stride: int, remat: str = "none", middle_blocks: int = 2):
  make = Maker(np.random.default_rng(0), remat=remat)
  return XceptionTrunk(width=4, middle_blocks=middle_blocks).build(output_stride, Style(), make)


@pytest.mark.parametrize("output_stride", [16, 8])
def test_features_have_known_strides_and_channels(output_stride):
  module = trunk(output_stride)
  run = functools.partial(parts.forward, *parts.split(module))
  features, _ = jax.eval_shape(lambda images: run(images, False), np.zeros((2, 65, 97, 3)))
  for x, stride, channels in zip(features, (4, 8, 16, 16), module.channels, strict=True):
    stride = min(stride, output_stride)
    assert x.shape == (2, -(-65 // stride), -(-97 // stride), channels)
  assert module.channels == (16, 32, 91, 256)
  default = XceptionTrunk().build(16, Style(), Maker(np.random.default_rng(0)))
  assert default.channels == (128, 256, 728, 2048) and default.last_block == 20


def test_dilation_takes_the_place_of_a_stride():
  fine, coarse = trunk(8), trunk(16)
  dilations = lambda module: {
    name: layer.dilation
    for name in ("block3", "block4", "block6", "conv3", "conv5")
    for layer in [getattr(module, name)]
    for layer in [layer if isinstance(layer, SeparableConv) else layer.rep[1]]
    for layer in [layer.conv1]
  }
  assert dilations(coarse) == {"block3": 1, "block4": 1, "block6": 1, "conv3": 2, "conv5": 2}
  assert dilations(fine) == {"block3": 1, "block4": 2, "block6": 2, "conv3": 4, "conv5": 4}
  assert (coarse.block3.skip.stride, fine.block3.skip.stride) == (2, 1)


def test_a_shortcut_sees_the_rectified_input():
  block = trunk(16).block4
  block.rep[-1].scale[...] = np.zeros_like(block.rep[-1].scale[...])
  x = np.random.default_rng(0).normal(size=(1, 3, 3, 91)).astype(np.float32)
  np.testing.assert_allclose(block(x, False), np.maximum(x, 0), atol=1e-3)  # and its bias


@pytest.mark.parametrize("remat", [pytest.param("elementwise", marks=pytest.mark.slow), "blocks"])
def test_blocks_can_be_rematerialised(remat):
  network, params, batch_stats = parts.split(trunk(16, remat, middle_blocks=0))
  images = np.zeros((2, 33, 33, 3), np.float32)
  loss = lambda params: parts.forward(network, params, batch_stats, images, True)[0][-1].sum()
  assert "remat" in str(jax.make_jaxpr(jax.grad(loss))(params))


def test_bad_values_are_named():
  with pytest.raises(ValueError, match="output_stride of an xception=32: choose from 16, 8"):
    model = {"name": "pspnet", "output_stride": 32, "trunk": {"name": "xception"}}
    networks.build({**model, "num_classes": 5})
