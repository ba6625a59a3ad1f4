import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

from semiseg_jax.collectives import as_varying
from semiseg_jax.models import networks
from semiseg_jax.models.layers import Make, make_layers
from semiseg_jax.models.resnet import BACKBONES, ResNet

TOY = {"num_classes": 5, "backbone": "resnet18", "width": 4, "decoder_dim": 8}


def _toy(name, **options):
  return networks.split(networks.create(name, **{**TOY, **options}))


def _images(batch, size=33):
  return np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)


def _shapes(graphdef, params, batch_stats, images, train=True):
  run = functools.partial(networks.forward, graphdef, train=train)
  return jax.eval_shape(run, params, batch_stats, images)


@pytest.mark.parametrize(("side", "expected"), [(321, 81), (512, 128), (513, 129)])
def test_deeplabv3p_has_stride_four(side, expected):
  outputs, _ = _shapes(*_toy("deeplabv3p", embedding_dim=6), np.zeros((2, side, side, 3)))
  assert outputs.logits.shape == (2, expected, expected, 5)
  assert outputs.embedding.shape == (2, expected, expected, 6)


@pytest.mark.parametrize(("side", "expected"), [(321, 41), (512, 64), (513, 65)])
def test_deeplabv2_has_stride_eight(side, expected):
  outputs, _ = _shapes(*_toy("deeplabv2", embedding_dim=6), np.zeros((2, side, side, 3)))
  assert outputs.logits.shape == (2, expected, expected, 5)
  assert outputs.embedding.shape == (2, expected, expected, 6)


@pytest.mark.parametrize("name", networks.ASPP_RATES)
def test_without_embedding_dim_there_is_no_representation(name):
  graphdef, params, batch_stats = _toy(name)
  assert "representation" not in params
  outputs, _ = _shapes(graphdef, params, batch_stats, _images(2))
  assert outputs.embedding is None


@pytest.mark.parametrize(("name", "millions"), [("deeplabv3p", 59.52), ("deeplabv2", 44.43)])
def test_published_size_is_made_at_once_on_the_host(name, millions):
  start = time.perf_counter()
  module = networks.create(name, num_classes=19, backbone="resnet101", embedding_dim=256)
  _, params, batch_stats = networks.split(module)
  seconds = time.perf_counter() - start
  assert seconds < 10, "about 1 second on an idle core"
  assert round(sum(x.size for x in jax.tree.leaves(params)) / 1e6, 2) == millions
  assert all(type(x) is np.ndarray for x in jax.tree.leaves((params, batch_stats)))
  assert all(x.dtype == np.float32 for x in jax.tree.leaves((params, batch_stats)))


def test_the_seed_decides_the_weights():
  weights = lambda seed: jax.tree.leaves(_toy("deeplabv3p", seed=seed)[1])
  assert all(map(np.array_equal, weights(3), weights(3)))
  assert not np.array_equal(weights(3)[0], weights(4)[0])


def test_initial_spreads_are_the_originals():
  _, params, _ = networks.split(networks.create("deeplabv2", num_classes=19, backbone="resnet50"))
  kernel = params["classifier"]["conv2d_list"]["2"]["kernel"]
  np.testing.assert_allclose(kernel.std(), 0.01, rtol=0.02)
  kernel = params["resnet"]["layer3"]["1"]["conv2"]["kernel"]  # He normal, fan out
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 256)), rtol=0.02)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"name": "unet"}, "name is 'unet': choose from deeplabv3p, deeplabv2"),
    ({"backbone": "vgg16"}, "backbone is 'vgg16': choose from resnet18, resnet34"),
    ({"output_stride": 4}, "output_stride of deeplabv3p is 4: choose from 16, 8"),
    ({"name": "deeplabv2", "output_stride": 16}, "output_stride of deeplabv2 is 16: choose from 8"),
  ],
)
def test_bad_arguments_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    networks.create(**{"name": "deeplabv3p", **TOY, **options})


def _trunk(backbone, output_stride):
  return ResNet(backbone, output_stride, 2, make_layers(np.random.default_rng(0)))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_trunk_keeps_its_output_stride(backbone, output_stride):
  graphdef, params, batch_stats = networks.split(_trunk(backbone, output_stride))
  features, _ = _shapes(graphdef, params, batch_stats, np.zeros((2, 65, 97, 3)))
  side = lambda n, stride: -(-n // stride)
  expansion = BACKBONES[backbone][0].expansion
  assert features.low.shape == (2, side(65, 4), side(97, 4), 2 * expansion)
  assert features.high.shape[1:3] == (side(65, output_stride), side(97, output_stride))
  assert features.high.shape[-1] == 16 * expansion


@pytest.mark.parametrize(
  ("output_stride", "stage3", "stage4"),
  [(32, (1, 1), (1, 1)), (16, (1, 1), (1, 2)), (8, (1, 2), (2, 4))],
)
def test_first_block_of_a_dilated_stage_has_half_the_dilation(output_stride, stage3, stage4):
  trunk = _trunk("resnet50", output_stride)
  for stage, (first, rest) in ((trunk.layer3, stage3), (trunk.layer4, stage4)):
    assert [block.conv2.dilation for block in stage] == [first] + [rest] * (len(stage) - 1)
    assert all(block.conv2.padding == block.conv2.dilation for block in stage)
  trunk = _trunk("resnet18", output_stride)  # only the convolution that lost its stride
  for stage, (first, rest) in ((trunk.layer3, stage3), (trunk.layer4, stage4)):
    assert [(b.conv1.dilation, b.conv2.dilation) for b in stage] == [(first, rest), (rest, rest)]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_a_dilated_trunk_computes_what_the_strided_one_does(backbone):
  """With dilation for stride, every second pixel of the output is the strided trunk's output."""
  graphdef, params, batch_stats = networks.split(_trunk(backbone, 32))
  images = _images(1, 65)
  strided, _ = networks.forward(graphdef, params, batch_stats, images, False)
  dilated_graphdef, *_ = networks.split(_trunk(backbone, 16))
  dilated, _ = networks.forward(dilated_graphdef, params, batch_stats, images, False)
  np.testing.assert_allclose(dilated.high[:, ::2, ::2], strided.high, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("output_stride", [16, 8])
def test_aspp_rates_double_with_the_resolution(output_stride):
  module = networks.create("deeplabv3p", **TOY, output_stride=output_stride)
  rates = [branch[0].dilation for branch in list(module.ASPP.convs)[1:4]]
  assert rates == [6 * 16 // output_stride * i for i in (1, 2, 3)]


def _loss_and_gradient(graphdef, params, batch_stats, images):
  def loss_fn(params):
    outputs, after = networks.forward(graphdef, params, batch_stats, images, True)
    return jnp.square(outputs.logits).mean() + jnp.abs(outputs.embedding).mean(), after

  return jax.value_and_grad(loss_fn, has_aux=True)(params)


def test_rematerialised_blocks_change_nothing():
  plain = _toy("deeplabv2", embedding_dim=4)
  remat = _toy("deeplabv2", embedding_dim=4, remat=True)
  run = jax.jit(_loss_and_gradient, static_argnums=0)
  check = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)
  jax.tree.map(check, run(*remat, _images(2)), run(*plain, _images(2)))
  text = lambda toy: str(
    jax.make_jaxpr(functools.partial(_loss_and_gradient, toy[0]))(*toy[1:], _images(2))
  )
  assert "remat" in text(remat) and "remat" not in text(plain)


def test_one_network_on_eight_devices_equals_one_device():
  graphdef, params, batch_stats = _toy("deeplabv3p", embedding_dim=4, remat=True)
  images = _images(8)
  expected = jax.jit(_loss_and_gradient, static_argnums=0)(graphdef, params, batch_stats, images)
  synchronised, *_ = _toy("deeplabv3p", embedding_dim=4, remat=True, axis_name="data")

  def per_device(params, batch_stats, images):
    def loss_fn(params):
      outputs, after = networks.forward(synchronised, params, batch_stats, images, True)
      loss = jnp.square(outputs.logits).mean() + jnp.abs(outputs.embedding).mean()
      return as_varying(loss, "data"), after

    run = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, after), grads = run(as_varying(params, "data"))
    return (lax.pmean(loss, "data"), after), lax.pmean(grads, "data")

  mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
  mapped = jax.shard_map(
    per_device, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=((P(), P()), P())
  )
  (loss, after), grads = jax.jit(mapped)(params, batch_stats, images)
  np.testing.assert_allclose(loss, expected[0][0], rtol=1e-5)
  check = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  jax.tree.map(check, after, expected[0][1])
  scale = max(np.abs(g).max() for g in jax.tree.leaves(expected[1]))
  near = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * scale)
  jax.tree.map(near, grads, expected[1])


def test_bfloat16_computes_low_and_returns_float32():
  options = {"embedding_dim": 4, "num_classes": 5}
  full = _toy("deeplabv3p", **options)
  graphdef, params, batch_stats = _toy("deeplabv3p", dtype=jnp.bfloat16, **options)
  run = jax.jit(lambda g, p, s, x: networks.forward(g, p, s, x, True), static_argnums=0)
  outputs, after = run(graphdef, params, batch_stats, _images(4))
  exact, _ = run(*full, _images(4))
  assert outputs.logits.dtype == outputs.embedding.dtype == jnp.float32
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(after))
  correlation = np.corrcoef(np.ravel(outputs.logits), np.ravel(exact.logits))[0, 1]
  assert correlation > 0.99
  text = str(
    jax.make_jaxpr(lambda p: networks.forward(graphdef, p, batch_stats, _images(2), True))(params)
  )
  assert "bf16" in text


def test_forward_runs_any_module_with_the_same_call():
  class Tiny(nnx.Module):
    def __init__(self, make: Make):
      self.conv1, self.bn1 = make.conv(3, 4, 3, padding=1), make.norm(4)
      self.heads = nnx.List([make.conv(4, 2, 1, use_bias=True) for _ in range(12)])

    def __call__(self, images, train):
      x = nnx.relu(self.bn1(self.conv1(images), train))
      return networks.Outputs(sum((i + 1) * head(x) for i, head in enumerate(self.heads)))

  module = Tiny(make_layers(np.random.default_rng(0)))
  graphdef, params, batch_stats = networks.split(module)
  assert list(params["heads"])[:3] == ["0", "1", "2"]
  expected = module(_images(2), False).logits
  outputs, after = jax.jit(lambda p, s, x: networks.forward(graphdef, p, s, x, False))(
    params, batch_stats, _images(2)
  )
  np.testing.assert_allclose(outputs.logits, expected, rtol=1e-5, atol=1e-5)
  assert jax.tree.structure(after) == jax.tree.structure(batch_stats)
  before = jax.tree.map(np.copy, batch_stats)
  _, trained = networks.forward(graphdef, params, batch_stats, _images(2), True)
  jax.tree.map(np.testing.assert_array_equal, batch_stats, before)  # trees go in unharmed
  assert not np.array_equal(trained["bn1"]["mean"], batch_stats["bn1"]["mean"])
  np.testing.assert_array_equal(module.bn1.mean[...], 0)  # the merged copy was trained, not this
