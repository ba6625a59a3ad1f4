"""What every network promises, for all that there are, on the narrowest trunks that there are.

Most of it is read off the traced program; what must be computed is compiled for one network of each
module.
"""

import dataclasses
import functools
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import PartitionSpec as P

from semiseg_jax import networks
from semiseg_jax.collectives import DATA_AXIS, pmean
from semiseg_jax.models.network import Network, Variables
from semiseg_jax.networks import NETWORKS, TRUNKS
from semiseg_jax.runtime.mesh import make_mesh

CLASSES, HEADS = 5, {"representation": 6, "selectors": 7}
FEATURELESS = {"fcn8"}  # their classifiers read several maps
LONG = {"deeplabv2 on DenseNetTrunk", "enet", "fcn8", "unet_resnet"}  # to compile
UNUSED = {f"br{i}" for i in range(1, 10)}  # GCN's, whose BatchNorms are there for its files
ON_ROWS = {"projection_head", "prediction_head", "selectors", "memory_selectors"}
# of the fields that are sizes
NARROW = {"width": 4, "decoder_dim": 8, "middle_blocks": 1, "depth": 4, "heads": 2, "grid": 2}
STEPS, LENGTH = 5, 0.05
LOSS, STATISTICS = 1e-5, 1e-4  # float32, added up in another order


def narrow(kind: type) -> dict[str, int]:
  return {f.name: NARROW[f.name] for f in dataclasses.fields(kind) if f.name in NARROW}


def trunk_of(kind: type) -> dict[str, Any]:
  """The first that there is of a kind, made narrow."""
  return {"name": next(name for name, k in TRUNKS.items() if k is kind), **narrow(kind)}


def descriptions() -> dict[str, dict[str, Any]]:
  """Every network on its own kind of trunk, and every other kind of trunk under a network, that of
  one stride too; and what a switch makes of one whose layers it shares."""
  trunks = [kind().trunk for kind in NETWORKS.values()]
  found = {
    name: {"name": name, "trunk": trunk_of(type(kind().trunk)), **narrow(kind)}
    for name, kind in NETWORKS.items()
  }
  used = {kind for kind in map(type, trunks) if not kind.ONE_STRIDE}
  name = "deeplabv2"
  others = {kind: {**found[name], "trunk": trunk_of(kind)} for kind in TRUNKS.values()}
  found |= {f"{name} on {k.__name__}": m for k, m in others.items() if k not in used}
  return found | {"segnet, tied": {**found["segnet"], "tied": True}}


def every_network(test):
  return pytest.mark.parametrize("model", descriptions().values(), ids=descriptions())(test)


def every_module(test):
  """One network of each module and kind of trunk: the last, which differs most from the first.

  Those that take longest to compile are in the slow suite. Nothing trains classifiers of images.
  """
  kind_of = lambda model: (
    NETWORKS[model["name"]].MODULE, TRUNKS[model["trunk"]["name"]], "tied" in model
  )  # fmt: skip
  trained = {
    n: model for n, model in descriptions().items() if not NETWORKS[model["name"]].OF_IMAGES
  }
  last = {kind_of(model): (name, model) for name, model in trained.items()}
  marks = lambda name: (pytest.mark.slow,) if name in LONG else ()
  cases = [pytest.param(model, id=name, marks=marks(name)) for name, model in last.values()]
  return pytest.mark.parametrize("model", cases)(test)


def build(model: dict[str, Any], **options: Any) -> tuple[Variables, Network]:
  return networks.build({"num_classes": CLASSES, "heads": heads_of(model), **model}, **options)


def heads_of(model: dict[str, Any]) -> dict[str, int]:
  return {} if model["name"] in FEATURELESS else HEADS


def levels(batch: int, height: int = 33, width: int = 33) -> np.ndarray:
  shape = (batch, height, width, 3)
  return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def keys(batch: int) -> jax.Array:
  return jax.random.split(jax.random.key(0), batch)


def moving(tree: dict, model: dict[str, Any]) -> dict:
  """The statistics that move in training: not those of heads on rows, of a frozen trunk, or of
  layers that nothing uses."""
  frozen = {"none": set(), "trunk": {"trunk"}, "all": tree.keys()}[networks.make(model).freeze_bn]
  return {name: part for name, part in tree.items() if name not in ON_ROWS | UNUSED | frozen}


def assert_all(check, *trees) -> None:
  assert jax.tree.all(jax.tree.map(check, *trees))


@pytest.mark.parametrize(
  ("dtype", "size", "train"),
  [(jnp.float32, (32, 48), False), (jnp.bfloat16, (33, 49), True)],
  ids=["even size in evaluation", "odd size in training in bfloat16"],
)
@every_network
def test_the_whole_is_the_decoder_behind_the_encoder(model, dtype, size, train):
  """The same operations one after the other, so the same bits; outputs are float32."""
  variables, network = build(model, dtype=dtype)
  network = dataclasses.replace(network, frozen=())  # whose gradient is stopped once a call

  def whole(params, batch_stats, images, keys):
    outputs, after = network(params, batch_stats, images, train, keys)
    same = jax.tree.map(lambda new, old: new is old, after, batch_stats)
    moves = jax.tree.leaves(moving(same, model))
    assert sum(moves) == (0 if train else len(moves))
    assert jax.tree.leaves(same).count(False) == (len(moves) if train else 0)
    return outputs, after

  def parts(params, batch_stats, images, keys):
    features, batch_stats = network.encode(params, batch_stats, images, train, keys)
    assert isinstance(features, tuple)
    return network.decode(params, batch_stats, features, images.shape[1:3], train, keys)

  args = (*variables, levels(2, *size), keys(2))
  (program, (outputs, after)), (other, _) = (
    jax.make_jaxpr(function, return_shape=True)(*args) for function in (whole, parts)
  )
  assert str(program) == str(other)
  assert ("bf16" in str(program)) == (dtype == jnp.bfloat16)

  batch, *grid, classes = outputs.logits.shape
  assert (batch, classes, outputs.logits.dtype) == (2, CLASSES, jnp.float32)
  if heads_of(model):
    assert outputs.embedding.shape == (2, *grid, HEADS["representation"])
    assert outputs.embedding.dtype == jnp.float32
    of_rows = variables.params["projection_head"]["0"]["kernel"]
    assert outputs.features.shape == (2, *grid, len(of_rows))
  resized = jax.eval_shape(functools.partial(network.resize, size=size), outputs.logits)
  assert resized.shape == (2, *size, CLASSES)
  same = lambda new, old: (new.shape, new.dtype) == (old.shape, old.dtype)
  assert_all(same, after, variables.batch_stats)


@every_network
def test_a_description_with_all_its_defaults_builds_the_same(model):
  described = networks.complete(model)
  assert networks.complete(described) == described
  (ours, network), (theirs, other) = build(model), build(described)
  assert_all(np.array_equal, ours, theirs)
  assert network == other and hash(network) == hash(other)  # jit compiles once for both
  assert_all(lambda x: type(x) is np.ndarray and x.dtype == np.float32, ours)
  another, _ = build(model, seed=1)
  assert not jax.tree.all(jax.tree.map(np.array_equal, another.params, ours.params))


@every_network
def test_every_stride_and_switch_works_and_heads_are_there_if_asked_for(model):
  kind = NETWORKS[model["name"]]
  default = kind()
  switches = [f.name for f in dataclasses.fields(kind) if isinstance(f.default, bool)]
  for values in (
    *({"output_stride": stride} for stride in kind.RATES),
    *({name: not getattr(default, name)} for name in switches),
  ):
    variables, network = build({**model, **values, "heads": {}})
    run = functools.partial(network, train=False)
    outputs, _ = jax.eval_shape(run, *variables, levels(2))
    assert outputs.logits.shape[-1] == CLASSES
    assert outputs.embedding is None and network.per_class == ()
  if not heads_of(model):
    with pytest.raises(ValueError, match=f"{model['name']}.* no features .* representation"):
      build({**model, "heads": HEADS})
    return
  with_heads, network = build({**model, **values})
  added = with_heads.params.keys() - variables.params.keys()
  assert added == {"representation", *ON_ROWS}
  assert set(network.per_class) == {"selectors", "memory_selectors"}


@every_network
def test_what_is_frozen_stays(model):
  """All statistics, or the trunk's parameters."""
  variables, network = build({**model, "freeze_bn": "all", "freeze_trunk": True, "heads": {}})
  in_trunk = {("trunk", *path) for path in flatten_dict(variables.params["trunk"])}
  assert in_trunk <= set(network.frozen)

  def train(params, batch_stats, images):
    outputs, after = network(params, batch_stats, images, True)
    assert jax.tree.all(jax.tree.map(operator.is_, after, batch_stats))
    return outputs.logits

  jax.eval_shape(train, *variables, levels(2))


def loss_and_statistics(network: Network, params, batch_stats, images, labels, image_keys):
  outputs, after = network(params, batch_stats, images, True, image_keys)
  logits = network.resize(outputs.logits, labels.shape[1:])
  loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
  others = [outputs.embedding, outputs.aux_logits]
  return loss + sum(jnp.square(x).mean() for x in others if x is not None), after


def moved(params, grads):
  """A step of LENGTH against the gradient; in numpy, which compiles nothing."""
  grads = jax.tree.map(np.asarray, grads)
  rate = np.float32(LENGTH / math.sqrt(sum(np.vdot(x, x) for x in jax.tree.leaves(grads))))
  return jax.tree.map(lambda x, grad: x - rate * grad, params, grads)


def batch_of_eight() -> tuple[np.ndarray, np.ndarray, jax.Array]:
  images = levels(8)
  return images, (images[..., 0] // 52).astype(np.int32), keys(8)


@functools.cache
def step_of(network: Network):
  return jax.jit(jax.value_and_grad(functools.partial(loss_and_statistics, network), has_aux=True))


@every_module
def test_it_learns(model):
  """Five steps make the loss of a batch less; what is frozen stays."""
  (params, batch_stats), network = build(model)
  batch, step = batch_of_eight(), step_of(network)
  (value, first), grads = step(params, batch_stats, *batch)
  assert_all(lambda new, old: (new != old).any(), *(moving(x, model) for x in (first, batch_stats)))

  learns = lambda names: names[0] not in ON_ROWS and names not in network.frozen
  for path, grad in jax.tree.leaves_with_path(grads):
    names = tuple(entry.key for entry in path)
    assert learns(names) == (np.abs(grad).max() > 0), names

  for _ in range(STEPS):
    params = moved(params, grads)
    (last, batch_stats), grads = step(params, batch_stats, *batch)
  assert last < value


@pytest.mark.slow  # by default tests/methods runs steps on eight devices, with a network of its own
@every_module
def test_eight_devices_agree_with_one(model):
  (params, batch_stats), network = build(model)
  batch = batch_of_eight()
  (value, first), _ = step_of(network)(params, batch_stats, *batch)

  _, synchronised = build(model, axis_name=DATA_AXIS)
  per_device = lambda *args: pmean(loss_and_statistics(synchronised, *args), DATA_AXIS)
  specs = (P(), P(), *[P(DATA_AXIS)] * len(batch))
  mapped = jax.shard_map(per_device, mesh=make_mesh(), in_specs=specs, out_specs=P())
  loss, after = jax.jit(mapped)(params, batch_stats, *batch)
  np.testing.assert_allclose(loss, value, rtol=LOSS)
  near = functools.partial(np.testing.assert_allclose, rtol=STATISTICS, atol=STATISTICS)
  jax.tree.map(near, after, first)
