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
from semiseg_jax.models.resnet import BACKBONES, Layout, ResNet

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


@pytest.mark.parametrize(
  ("name", "side", "expected"),
  [
    *[("deeplabv2_coco", side, n) for side, n in ((321, 41), (512, 65), (256, 33))],
    *[("deeplabv2_imagenet", side, n) for side, n in ((321, 41), (512, 64), (256, 32))],
    *[("deeplabv3plus", side, n) for side, n in ((321, 81), (512, 128))],
  ],
)
def test_the_memory_banks_networks_have_its_feature_sizes(name, side, expected):
  outputs, _ = _shapes(*_toy(name), np.zeros((2, side, side, 3)))
  assert outputs.logits.shape == (2, expected, expected, 5)
  assert outputs.features.shape == (2, expected, expected, 8 if name == "deeplabv3plus" else 32)


@pytest.mark.parametrize("name", networks.ORIGINALS)
def test_heads_read_the_features_of_any_network(name):
  module = networks.create(name, **TOY, head_dim=6)
  graphdef, params, batch_stats = networks.split(module)
  outputs, _ = _shapes(graphdef, params, batch_stats, _images(2))
  assert params["projection_head"]["0"]["kernel"].shape == (outputs.features.shape[-1], 6)
  assert params["memory_selectors"]["0"]["kernel"].shape == (5, 6, 6)
  assert not {"projection_head", "selectors"} & set(_toy(name)[1])


@pytest.mark.parametrize("name", networks.ORIGINALS)
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


@pytest.mark.parametrize(
  ("name", "classes", "count", "tensors"),  # the original has a class's selectors one by one
  [("deeplabv2_coco", 21, 47_567_038, 376), ("deeplabv3plus", 19, 43_145_177, 322)],
)
def test_the_memory_banks_networks_have_its_sizes(name, classes, count, tensors):
  backbone = "resnet50" if name == "deeplabv3plus" else "resnet101"
  module = networks.create(name, num_classes=classes, backbone=backbone, head_dim=256)
  _, params, _ = networks.split(module)
  assert sum(x.size for x in jax.tree.leaves(params)) == count
  is_trained = jax.tree.map(lambda frozen: not frozen, networks.frozen(module))
  trained = {part: sum(jax.tree.leaves(of_part)) for part, of_part in is_trained.items()}
  stacked = trained["selectors"] + trained["memory_selectors"]
  unused = 4 if name == "deeplabv2_coco" else 0  # in the original's optimiser, without a gradient
  assert sum(trained.values()) - stacked + classes * stacked + unused == tensors


@pytest.mark.parametrize("name", networks.ORIGINALS)
def test_frozen_are_the_trunks_affine_and_the_unused_branches(name):
  module = networks.create(name, **TOY, head_dim=6)
  frozen = networks.frozen(module)
  assert jax.tree.structure(frozen) == jax.tree.structure(networks.split(module)[1])
  paths = {
    jax.tree_util.keystr(path, simple=True, separator=".")
    for path, is_frozen in jax.tree_util.tree_leaves_with_path(frozen)
    if is_frozen
  }
  if name in ("deeplabv2", "deeplabv3p", "deeplabv3", "resnet"):
    assert not paths
    return
  branches = {path for path in paths if path.startswith("classifier")}
  unused = [f"classifier.conv2d_list.{i}.{name}" for i in (2, 3) for name in ("kernel", "bias")]
  assert branches == (set() if name == "deeplabv3plus" else set(unused))
  norms = jax.tree_util.tree_leaves_with_path(networks.split(module)[2]["resnet"])
  assert len(paths - branches) == len(norms)  # scale and bias to each mean and variance
  assert all(
    path.startswith("resnet.") and path.endswith((".scale", ".bias")) for path in paths - branches
  )


def test_a_second_classifier_is_frozen_and_left_out_in_training():
  graphdef, params, batch_stats = _toy("deeplabv3", aux_head=True)
  module = networks.create("deeplabv3", **TOY, aux_head=True)
  assert all(jax.tree.leaves(networks.frozen(module)["aux_classifier"]))
  run = lambda train: jax.eval_shape(
    lambda x: networks.forward(graphdef, params, batch_stats, x, train)[0], _images(2)
  )
  assert run(False).aux_logits.shape == run(False).logits.shape
  assert run(True).aux_logits is None


def test_frozen_parameters_get_no_gradient_and_their_statistics_move():
  module = networks.create("deeplabv2_coco", **TOY)
  graphdef, params, batch_stats = networks.split(module)

  @jax.jit
  def run(params, batch_stats, images):
    def loss_fn(params):
      outputs, after = networks.forward(graphdef, params, batch_stats, images, True)
      return jnp.square(outputs.logits).mean(), after

    return jax.grad(loss_fn, has_aux=True)(params)

  grads, after = run(params, batch_stats, _images(2))
  has_gradient = jax.tree.map(lambda grad: bool(np.abs(grad).max() > 0), grads)
  assert has_gradient == jax.tree.map(lambda frozen: not frozen, networks.frozen(module))
  moved = jax.tree.map(lambda new, old: bool((new != old).any()), after, batch_stats)
  assert all(jax.tree.leaves(moved))


def test_all_branches_of_the_classifier_can_be_added_up():
  module = networks.create("deeplabv2_imagenet", **TOY, classifier_branches=4)
  assert not any(jax.tree.leaves(networks.frozen(module)["classifier"]))
  x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 7, 32)), jnp.float32)
  expected = sum(conv(x) for conv in module.classifier.conv2d_list)
  np.testing.assert_allclose(module.classifier(x), expected, rtol=1e-6)


def test_the_seed_decides_the_weights():
  weights = lambda seed: jax.tree.leaves(_toy("deeplabv3p", seed=seed)[1])
  assert all(map(np.array_equal, weights(3), weights(3)))
  assert not np.array_equal(weights(3)[0], weights(4)[0])


def test_the_memory_banks_initial_values():
  """Convolutions from N(0, 0.01^2); their biases and linear layers as PyTorch makes them."""
  module = networks.create(
    "deeplabv3plus", num_classes=19, backbone="resnet18", width=32, decoder_dim=64, head_dim=64
  )
  _, params, _ = networks.split(module)
  for path, x in jax.tree_util.tree_leaves_with_path(params):
    if x.ndim == 4 and x.size > 2000:
      np.testing.assert_allclose(x.std(), 0.01, rtol=0.1, err_msg=str(path))
  for head in ("projection_head", "prediction_head"):
    for layer in ("0", "3"):
      for x in params[head][layer].values():
        assert 0.9 / 8 < np.abs(x).max() <= 1 / 8  # fan in 64
  assert 0.8 / 8 < np.abs(params["classifier"]["bias"]).max() <= 1 / 8


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
    (
      {"name": "deeplabv2_coco", "classifier_branches": 5},
      "classifier_branches is 5: choose from 1, 2, 3, 4",
    ),
    ({"name": "deeplabv2", "output_stride": 16}, "output_stride of deeplabv2 is 16: choose from 8"),
  ],
)
def test_bad_arguments_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    networks.create(**{"name": "deeplabv3p", **TOY, **options})


def _trunk(backbone, output_stride, **layout):
  make = make_layers(np.random.default_rng(0))
  return ResNet(backbone, output_stride, 2, make, layout=Layout(**layout))


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


def test_all_blocks_of_a_dilated_stage_can_have_its_dilation():
  for output_stride, dilations in ((16, (1, 1, 1, 2)), (8, (1, 1, 2, 4))):
    trunk = _trunk("resnet50", output_stride, dilate_first=True)
    for stage, dilation in enumerate(dilations, start=1):
      blocks = getattr(trunk, f"layer{stage}")
      assert {block.conv2.dilation for block in blocks} == {dilation}


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_a_bottlenecks_stride_is_where_the_layout_has_it(stride_in_1x1):
  trunk = _trunk("resnet50", 16, stride_in_1x1=stride_in_1x1)
  strides = [block.conv1.stride for block in trunk.layer2], [b.conv2.stride for b in trunk.layer2]
  assert strides == (([2, 1, 1, 1], [1] * 4) if stride_in_1x1 else ([1] * 4, [2, 1, 1, 1]))


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


@pytest.mark.parametrize("what", ["elementwise", "blocks"])
def test_rematerialised_blocks_change_nothing(what):
  plain = _toy("deeplabv2", embedding_dim=4)
  remat = _toy("deeplabv2", embedding_dim=4, remat=what)
  run = jax.jit(_loss_and_gradient, static_argnums=0)
  check = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)
  jax.tree.map(check, run(*remat, _images(2)), run(*plain, _images(2)))
  text = lambda toy: str(
    jax.make_jaxpr(functools.partial(_loss_and_gradient, toy[0]))(*toy[1:], _images(2))
  )
  assert "remat" in text(remat) and "remat" not in text(plain)
  convolutions = [text(toy).count("conv_general_dilated[") for toy in (plain, remat)]
  assert (convolutions[0] < convolutions[1]) == (what == "blocks")


def test_one_network_on_eight_devices_equals_one_device():
  graphdef, params, batch_stats = _toy("deeplabv3p", embedding_dim=4, remat="blocks")
  images = _images(8)
  expected = jax.jit(_loss_and_gradient, static_argnums=0)(graphdef, params, batch_stats, images)
  synchronised, *_ = _toy("deeplabv3p", embedding_dim=4, remat="blocks", axis_name="data")

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


def test_dropout_needs_keys_and_leaves_the_features():
  graphdef, params, batch_stats = _toy("deeplabv3plus")
  keys = jax.random.split(jax.random.key(0), 2)
  run = jax.jit(functools.partial(networks.forward, graphdef), static_argnums=3)
  dropped, _ = run(params, batch_stats, _images(2), True, keys)
  other, _ = run(params, batch_stats, _images(2), True, keys[::-1])
  plain, _ = run(params, batch_stats, _images(2), True)
  assert not np.allclose(dropped.logits, plain.logits)
  assert not np.allclose(dropped.logits, other.logits)
  logits = dropped.features @ params["classifier"]["kernel"][0, 0] + params["classifier"]["bias"]
  assert not np.allclose(dropped.logits, logits)  # dropped after the features
  logits = plain.features @ params["classifier"]["kernel"][0, 0] + params["classifier"]["bias"]
  np.testing.assert_allclose(plain.logits, logits, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ("name", "train"), [("deeplabv2_coco", True), ("deeplabv3p", True), ("deeplabv3plus", False)]
)
def test_nothing_is_dropped_in_evaluation_nor_where_there_is_no_dropout(name, train):
  graphdef, params, batch_stats = _toy(name)
  run = functools.partial(networks.forward, graphdef, train=train)
  keys = jax.random.split(jax.random.key(0), 2)
  jaxpr = jax.make_jaxpr(run)(params, batch_stats, _images(2), keys=keys)
  assert "random_bits" not in str(jaxpr)


def test_apply_runs_any_part():
  graphdef, params, batch_stats = _toy("deeplabv2_coco", head_dim=6)
  rows = np.random.default_rng(0).normal(size=(8, 32)).astype(np.float32)
  project = lambda module: module.projection_head(rows, np.ones(8, bool), True)
  projected, after = networks.apply(graphdef, params, batch_stats, project)
  assert projected.shape == (8, 6)
  same = lambda part: jax.tree.map(np.array_equal, after[part], batch_stats[part])
  changed = [part for part in after if not all(jax.tree.leaves(same(part)))]
  assert changed == ["projection_head"]
