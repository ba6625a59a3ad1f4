import contextlib
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from semiseg_jax import networks
from semiseg_jax.collectives import as_varying, pmean, value_and_grad
from semiseg_jax.models.layers import Maker
from semiseg_jax.models.network import Outputs, Segmenter, split_network
from semiseg_jax.models.resnet import BACKBONES, ResNetTrunk
from semiseg_jax.models.trunk import Style
from semiseg_jax.runtime.mesh import make_mesh
from tests.models import parts

TOY = {"num_classes": 5, "trunk": {"name": "resnet18", "width": 4}}


def _toy(name, *, dtype=np.float32, axis_name=None, remat="none", **values):
  """(network, params, batch_stats) of a small one."""
  kind = networks.NETWORKS[name]
  if hasattr(kind, "decoder_dim"):
    values = {"decoder_dim": 8, **values}
  if not issubclass(ResNetTrunk, kind.TRUNKS):
    values = {"trunk": {"name": kind.trunk.name, "width": 4}, **values}
  how = {"dtype": dtype, "axis_name": axis_name, "remat": remat}
  variables, network = networks.build({"name": name, **TOY, **values}, **how)
  return network, *variables


def _module(name, num_classes=5, embedding_dim=None, **values):
  maker = Maker(np.random.default_rng(0))
  description = networks.make({"name": name, "trunk": TOY["trunk"], **values})
  return description.build(num_classes, embedding_dim, maker)


def _levels(batch, size=33):
  return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3)).astype(np.uint8)


def _images(batch, size=33):
  return np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)


def _shapes(network, params, batch_stats, images, train=True):
  return jax.eval_shape(functools.partial(network, train=train), params, batch_stats, images)[0]


_STRIDES = {
  "deeplabv3p": {321: 81, 512: 128, 513: 129},
  "deeplabv2": {321: 41, 512: 64, 513: 65},
  "deeplabv2_coco": {321: 41, 512: 65, 256: 33},
  "deeplabv2_imagenet": {321: 41, 512: 64, 256: 32},
  "deeplabv3plus": {321: 81, 512: 128},
  "deeplabv3plus_c3": {321: 81, 512: 128},
  "deeplabv3plus_zoo": {321: 81, 512: 128},
  "deeplabv3": {321: 41, 512: 64},
}


@pytest.mark.parametrize(
  ("name", "side", "expected"),
  [(name, side, n) for name, sides in _STRIDES.items() for side, n in sides.items()],
)
def test_outputs_have_the_originals_sizes(name, side, expected):
  outputs = _shapes(*_toy(name), np.zeros((2, side, side, 3)))
  channels = {"deeplabv3p": 48 + 8}.get(name, 8 if name.startswith("deeplabv3") else 32)
  assert outputs.logits.shape == (2, expected, expected, 5)
  assert outputs.features.shape == (2, expected, expected, channels)


@pytest.mark.parametrize(("name", "millions"), [("deeplabv3p", 59.52), ("deeplabv2", 44.43)])
def test_published_size_is_made_at_once_on_the_host(name, millions):
  start = time.perf_counter()
  model = {"name": name, "num_classes": 19, "heads": {"representation": 256}}
  (params, _), _ = networks.build(model)
  seconds = time.perf_counter() - start
  assert seconds < 10, "about 1 second on an idle core"
  assert round(sum(x.size for x in jax.tree.leaves(params)) / 1e6, 2) == millions


@pytest.mark.parametrize(
  ("name", "classes", "count", "tensors"),  # the original has a class's selectors one by one
  [("deeplabv2_coco", 21, 47_567_038, 376), ("deeplabv3plus", 19, 43_145_177, 322)],
)
def test_the_memory_banks_networks_have_its_sizes(name, classes, count, tensors):
  trunk = {"name": "resnet50" if name == "deeplabv3plus" else "resnet101"}
  model = {"name": name, "trunk": trunk, "num_classes": classes, "heads": {"selectors": 256}}
  (params, _), network = networks.build(model)
  assert sum(x.size for x in jax.tree.leaves(params)) == count
  stacked = len(jax.tree.leaves([params[part] for part in network.per_class]))
  trained = len(jax.tree.leaves(params)) - len(network.frozen) - stacked
  unused = 4 if name == "deeplabv2_coco" else 0  # in the original's optimiser, without a gradient
  assert trained + classes * stacked + unused == tensors


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_frozen_is_what_the_originals_never_train(name):
  network, params, batch_stats = _toy(name, heads={} if name == "fcn8" else {"selectors": 6})
  frozen = set(network.frozen)
  paths = jax.tree.leaves_with_path(params)
  assert frozen <= {tuple(entry.key for entry in path) for path, _ in paths}
  branches = {path for path in frozen if path[0] == "classifier"}
  unused = {("classifier", "conv2d_list", i, kind) for i in "23" for kind in ("kernel", "bias")}
  assert branches == (unused if name in ("deeplabv2_coco", "deeplabv2_imagenet") else set())
  if name == "fcn8":
    assert {path[0] for path in frozen} == {"up_output", "up_pool4_out", "up_final"}
    return
  if name == "gcn":
    assert frozen == {p for p in frozen if p[0][:2] == "br" and p[1] in ("bn1", "bn2")} != set()
    return
  if name == "dpt":
    assert {path[:2] for path in frozen} == {
      ("trunk", "mask_token"),
      ("refinenet4", "resConfUnit1"),
    }
    return
  if name not in ("deeplabv2_coco", "deeplabv2_imagenet", "deeplabv3plus", "deeplabv3plus_c3"):
    assert not frozen
    return
  assert all(path[0] == "trunk" and path[-1] in ("scale", "bias") for path in frozen - branches)
  if name == "deeplabv3plus_c3":  # by their names: tests/convert/test_c3.py has the original's list
    of_blocks = {path for path in frozen if "bn" in path[-2] and path[1] != "bn1"}
    assert frozen == of_blocks and len(frozen) == 2 * 2 * 8
    return
  # scale and bias to each mean and variance
  assert len(frozen - branches) == len(jax.tree.leaves(batch_stats["trunk"]))


def test_a_second_classifier_is_frozen_and_left_out_in_training():
  network, params, batch_stats = _toy("deeplabv3", aux_head=True)
  frozen = [path for path in network.frozen if path[0] == "aux_classifier"]
  assert len(frozen) == len(jax.tree.leaves(params["aux_classifier"]))
  outputs = _shapes(network, params, batch_stats, _levels(2), train=False)
  assert outputs.aux_logits.shape == outputs.logits.shape
  assert _shapes(network, params, batch_stats, _levels(2)).aux_logits is None


def test_all_branches_of_the_classifier_can_be_added_up():
  network, *_ = _toy("deeplabv2_imagenet", classifier_branches=4)
  assert not any(path[0] == "classifier" for path in network.frozen)
  classifier = _module("deeplabv2_imagenet", classifier_branches=4).classifier
  x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 7, 32)), jnp.float32)
  expected = sum(conv(x) for conv in classifier.conv2d_list)
  np.testing.assert_allclose(classifier(x), expected, rtol=1e-6)


def test_the_memory_banks_initial_values():
  """Convolutions from N(0, 0.01^2); their biases and linear layers as PyTorch makes them."""
  trunk, heads = {"name": "resnet18", "width": 32}, {"selectors": 64}
  _, params, _ = _toy("deeplabv3plus", num_classes=19, trunk=trunk, decoder_dim=64, heads=heads)
  for path, x in jax.tree.leaves_with_path(params):
    if x.ndim == 4 and x.size > 2000:
      np.testing.assert_allclose(x.std(), 0.01, rtol=0.1, err_msg=str(path))
  for head in ("projection_head", "prediction_head"):
    for layer in ("0", "3"):
      for x in params[head][layer].values():
        assert 0.9 / 8 < np.abs(x).max() <= 1 / 8  # fan in 64
  assert 0.8 / 8 < np.abs(params["classifier"]["bias"]).max() <= 1 / 8


def test_c3s_initial_values_outside_a_resnet():
  """He's by fan in; BatchNorms begin a little above 0."""
  trunk = {"name": "xception", "middle_blocks": 1}
  _, params, _ = _toy("deeplabv3plus_c3", num_classes=19, trunk=trunk, decoder_dim=64)
  for path, x in jax.tree.leaves_with_path(params):
    if x.ndim == 4 and x.size > 5000:
      expected = np.sqrt(2 / np.prod(x.shape[:3]))
      np.testing.assert_allclose(x.std(), expected, rtol=0.05, err_msg=str(path))
  assert (params["decoder"]["1"]["bias"] == params["trunk"]["bn1"]["bias"][0]).all()
  assert params["trunk"]["bn1"]["bias"][0] == np.float32(1e-4)


def test_initial_spreads_are_the_originals():
  _, params, _ = _toy("deeplabv2", num_classes=19, trunk={"name": "resnet50"})
  kernel = params["classifier"]["conv2d_list"]["2"]["kernel"]
  np.testing.assert_allclose(kernel.std(), 0.01, rtol=0.02)
  kernel = params["trunk"]["layer3"]["1"]["conv2"]["kernel"]  # He normal, fan out
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 256)), rtol=0.02)


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"name": "unett"}, "model.name='unett': did you mean 'unet'"),
    ({"trunk": {"name": "vgg"}}, "model.trunk.name='vgg': did you mean 'vgg16'"),
    ({"trunk": {"name": "vgg16"}}, "'vgg16' does not carry this network: .* 'resnet101'"),
    ({"trunk": {"width": 4}}, "model.trunk.name='': choose from resnet18, resnet34"),
    ({"trunk": {"name": "resnet18", "widht": 4}}, "trunk.widht .* did you mean 'width'?"),
    ({"output_stride": 4}, "model.output_stride=4: choose from 16, 8"),
    ({"name": "deeplabv2", "output_stride": 16}, "model.output_stride=16: choose from 8"),
    ({"name": "deeplabv2", "classifier_branches": 5}, "classifier_branches=5 must be at most 4"),
    ({"decoder_dims": 8}, "model.decoder_dims is no key of 'deeplabv3p': did you mean"),
    ({"decoder_dim": "8"}, "model.decoder_dim='8' must be a whole number"),
    ({"heads": {"selector": 3}}, "head='selector': choose from 'representation', 'selectors'"),
    ({"normalization": "imagnet"}, "model.normalization='imagnet': did you mean 'imagenet'?"),
  ],
)
def test_bad_descriptions_are_named(values, message):
  with pytest.raises(ValueError, match=message):
    networks.build({"name": "deeplabv3p", **TOY, **values})


def test_an_unknown_way_to_rematerialise_is_named():
  with pytest.raises(ValueError, match="remat='all': choose from 'none', 'elementwise', 'blocks'"):
    _toy("deeplabv3p", remat="all")


def _trunk(name, output_stride, **style):
  maker = Maker(np.random.default_rng(0))
  return ResNetTrunk(name, 2).build(output_stride, Style(**style), maker)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_trunk_keeps_its_output_stride(name, output_stride):
  trunk = _trunk(name, output_stride)
  run = functools.partial(parts.forward, *parts.split(trunk))
  features, _ = jax.eval_shape(lambda images: run(images, False), np.zeros((2, 65, 97, 3)))
  expansion = BACKBONES[name][0].expansion
  for stage, x in enumerate(features):
    stride, channels = min(4 << stage, output_stride), (2 << stage) * expansion
    assert x.shape == (2, -(-65 // stride), -(-97 // stride), channels)
    assert trunk.channels[stage] == channels


@pytest.mark.parametrize(
  ("output_stride", "stage3", "stage4"),
  [(32, (1, 1), (1, 1)), (16, (1, 1), (1, 2)), (8, (1, 2), (2, 4))],
)
def test_first_block_of_a_dilated_stage_has_half_the_dilation(output_stride, stage3, stage4):
  trunk = _trunk("resnet50", output_stride)
  for stage, (first, rest) in ((trunk.layer3, stage3), (trunk.layer4, stage4)):
    assert [block.conv2.dilation for block in stage] == [first] + [rest] * (len(stage) - 1)
    assert all(block.conv2.padding == (block.conv2.dilation,) * 2 for block in stage)
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


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_dilated_trunk_computes_what_the_strided_one_does(name):
  """With dilation for stride, every second pixel of the output is the strided trunk's output."""
  strided, params, batch_stats = parts.split(_trunk(name, 32))
  dilated, *_ = parts.split(_trunk(name, 16))
  (*_, expected), _ = parts.forward(strided, params, batch_stats, _images(1, 65), False)
  (*_, high), _ = parts.forward(dilated, params, batch_stats, _images(1, 65), False)
  np.testing.assert_allclose(high[:, ::2, ::2], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("output_stride", [16, 8])
def test_aspp_rates_double_with_the_resolution(output_stride):
  module = _module("deeplabv3p", output_stride=output_stride)
  rates = [branch[0].dilation for branch in list(module.ASPP.convs)[1:4]]
  assert rates == [6 * 16 // output_stride * i for i in (1, 2, 3)]


def _loss(network, params, batch_stats, levels):
  outputs, after = network(params, batch_stats, levels, True)
  others = [] if outputs.embedding is None else [jnp.abs(outputs.embedding).mean()]
  return sum(others, jnp.square(outputs.logits).mean()), after


def _loss_and_gradient(network, params, batch_stats, levels):
  loss = functools.partial(_loss, network)
  return jax.value_and_grad(loss, has_aux=True)(params, batch_stats, levels)


@contextlib.contextmanager
def _flax(tree_mode):
  """Whether flax takes modules for trees, as it will by default, or for graphs."""
  with nnx.set_graph_mode(not tree_mode), nnx.set_graph_updates(not tree_mode):
    yield


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_flax_may_take_modules_for_trees(name):
  """The program is the same, and one compilation serves equal networks."""

  def trace():
    toys = [_toy(name, heads={} if name == "fcn8" else {"representation": 4}) for _ in range(2)]
    assert toys[0][0] == toys[1][0] and hash(toys[0][0]) == hash(toys[1][0])
    network, *arrays = toys[0]
    return str(jax.make_jaxpr(functools.partial(_loss, network))(*arrays, _levels(2)))

  with _flax(tree_mode=True):
    as_tree = trace()
  with _flax(tree_mode=False):
    assert as_tree == trace()


@pytest.mark.parametrize(
  ("what", "tree_mode"),
  [("elementwise", True), pytest.param("blocks", False, marks=pytest.mark.slow)],
)
def test_rematerialised_blocks_change_nothing(what, tree_mode):
  run = jax.jit(_loss_and_gradient, static_argnums=0)
  plain = _toy("deeplabv2", heads={"representation": 4})
  expected = run(*plain, _levels(2))
  with _flax(tree_mode):
    remat = _toy("deeplabv2", heads={"representation": 4}, remat=what)
    found = run(*remat, _levels(2))
  check = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)
  jax.tree.map(check, found, expected)
  text = lambda toy: str(
    jax.make_jaxpr(functools.partial(_loss_and_gradient, toy[0]))(*toy[1:], _levels(2))
  )
  assert "remat" in text(remat) and "remat" not in text(plain)
  convolutions = [text(toy).count("conv_general_dilated[") for toy in (plain, remat)]
  assert (convolutions[0] < convolutions[1]) == (what == "blocks")


@pytest.mark.slow  # tests/methods has that of the tiny network
def test_the_gradient_on_eight_devices_equals_that_on_one():
  heads = {"representation": 4}
  network, params, batch_stats = _toy("deeplabv3p", heads=heads, remat="blocks")
  expected = jax.jit(_loss_and_gradient, static_argnums=0)(network, params, batch_stats, _levels(8))
  synchronised, *_ = _toy("deeplabv3p", heads=heads, remat="blocks", axis_name="data")

  def per_device(params, batch_stats, levels):
    loss = functools.partial(_loss, synchronised)
    return pmean(value_and_grad(loss, as_varying(params, "data"), batch_stats, levels), "data")

  mapped = jax.shard_map(
    per_device, mesh=make_mesh(), in_specs=(P(), P(), P("data")), out_specs=P()
  )
  loss, after, grads = jax.jit(mapped)(params, batch_stats, _levels(8))
  np.testing.assert_allclose(loss, expected[0][0], rtol=1e-5)
  check = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  jax.tree.map(check, after, expected[0][1])
  scale = max(np.abs(g).max() for g in jax.tree.leaves(expected[1]))
  near = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * scale)
  jax.tree.map(near, grads, expected[1])


@pytest.mark.parametrize("name", ["deeplabv2_coco", "deeplabv3plus_c3"])
def test_frozen_batch_norms_compute_as_in_evaluation(name):
  """Dropout and the decoder's BatchNorms are in training all the same."""
  network, params, batch_stats = _toy(name, freeze_bn="trunk")
  images = _levels(2)
  deep = lambda train: network.encode(params, batch_stats, images, train)[0]
  jax.tree.map(np.testing.assert_array_equal, deep(True), deep(False))
  keys = jax.random.split(jax.random.key(0), 2)
  program = jax.make_jaxpr(functools.partial(network, train=True))(
    params, batch_stats, images, keys=keys
  )
  assert ("random_bits" in str(program)) == name.startswith("deeplabv3")


def test_bfloat16_computes_almost_the_same():
  run = jax.jit(lambda network, *args: network(*args, True)[0], static_argnums=0)
  low, exact = (
    run(*_toy("deeplabv3p", heads={"representation": 4}, dtype=dtype), _levels(4))
    for dtype in (jnp.bfloat16, jnp.float32)
  )
  assert low.features.dtype == jnp.bfloat16
  assert np.corrcoef(np.ravel(low.logits), np.ravel(exact.logits))[0, 1] > 0.99


def test_a_network_runs_any_module_with_the_same_call():
  class Tiny(Segmenter):
    def __init__(self, make: Maker):
      self.conv1, self.bn1 = make.conv(3, 4, 3, padding=1), make.norm(4)
      self.heads = nnx.List([make.conv(4, 2, 1, use_bias=True) for _ in range(12)])

    def encode(self, images, train, keys=None):
      return (nnx.relu(self.bn1(self.conv1(images), train)),)

    def decode(self, features, size, train, keys=None):
      return Outputs(sum((i + 1) * head(*features) for i, head in enumerate(self.heads)))

  module = Tiny(Maker(np.random.default_rng(0)))
  (params, batch_stats), network = split_network(module)
  assert list(params["heads"])[:3] == ["0", "1", "2"]
  expected = module(_images(2), False).logits
  run = functools.partial(parts.forward, network)
  outputs, after = jax.jit(run, static_argnums=3)(params, batch_stats, _images(2), False)
  np.testing.assert_allclose(outputs.logits, expected, rtol=1e-5, atol=1e-5)
  assert jax.tree.structure(after) == jax.tree.structure(batch_stats)
  before = jax.tree.map(np.copy, batch_stats)
  _, trained = run(params, batch_stats, _images(2), True)
  jax.tree.map(np.testing.assert_array_equal, batch_stats, before)  # trees go in unharmed
  assert not np.array_equal(trained["bn1"]["mean"], batch_stats["bn1"]["mean"])
  np.testing.assert_array_equal(module.bn1.mean[...], 0)  # the merged copy was trained, not this


def test_dropout_needs_keys_and_leaves_the_features():
  network, params, batch_stats = _toy("deeplabv3plus")
  keys = jax.random.split(jax.random.key(0), 2)
  run = jax.jit(network, static_argnums=3)
  dropped, _ = run(params, batch_stats, _levels(2), True, keys)
  other, _ = run(params, batch_stats, _levels(2), True, keys[::-1])
  plain, _ = run(params, batch_stats, _levels(2), True)
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
  network, params, batch_stats = _toy(name)
  keys = jax.random.split(jax.random.key(0), 2)
  run = functools.partial(network, train=train, keys=keys)
  assert "random_bits" not in str(jax.make_jaxpr(run)(params, batch_stats, _levels(2)))


def test_apply_runs_any_part():
  network, params, batch_stats = _toy("deeplabv2_coco", heads={"selectors": 6})
  rows = np.random.default_rng(0).normal(size=(8, 32)).astype(np.float32)
  project = lambda module: module.projection_head(rows, np.ones(8, bool), True)
  projected, after = network.apply(params, batch_stats, project)
  assert projected.shape == (8, 6)
  same = lambda part: jax.tree.map(np.array_equal, after[part], batch_stats[part])
  changed = [part for part in after if not all(jax.tree.leaves(same(part)))]
  assert changed == ["projection_head"]
