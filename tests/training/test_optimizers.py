"""The optimisers against PyTorch's."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from semiseg_jax.training.optimizers import make_optimizer
from tests import golden

# Adam's 1 - b2^step in float32, where PyTorch has it in float64: 3e-5 of a step of 0.02.
CLOSE = {"rtol": 1e-5, "atol": 3e-6}


class Net(NamedTuple):
  frozen: tuple = ()
  late: tuple = ()
  per_class: tuple = ()


PLAIN = Net()
SHAPES = {
  "trunk": {"conv": {"kernel": (3, 4), "bias": (4,)}, "norm": {"scale": (4,)}},
  "head": {"kernel": (4, 2), "bias": (2,)},
}


def random_tree(seed, shapes=SHAPES):
  rng = np.random.default_rng(seed)
  draw = lambda shape: rng.normal(size=shape).astype(np.float32)
  return jax.tree.map(draw, shapes, is_leaf=lambda shape: isinstance(shape, tuple))


def by_path(tree):
  return {".".join(key.key for key in path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def config(name, schedule="constant", of_schedule=(), **fields):
  return {"name": name, **fields, "schedule": {"name": schedule, **dict(of_schedule)}}


def ours(section, grads, params, steps=None, net=PLAIN, jit=True):
  """The parameters after each step, and the last state."""
  optimizer = make_optimizer(section, steps or len(grads), {"student": net})
  update = jax.jit(optimizer.update) if jit else optimizer.update
  params, history = {"student": params}, []
  state = optimizer.init(params)
  for grad in grads:
    updates, state = update({"student": grad}, state, params)
    params = optax.apply_updates(params, updates)
    history.append(params["student"])
  return history, state


def pytorchs(make, grads, params, group_of=lambda path: 0, groups=({},), schedule=None):
  """The same of a torch optimiser: make(torch, groups of parameters); a gradient may be None."""
  torch = pytest.importorskip("torch")
  tensors = {k: torch.tensor(v, requires_grad=True) for k, v in by_path(params).items()}
  optimizer = make(
    torch.optim,
    [
      {"params": [t for path, t in tensors.items() if group_of(path) == index], **options}
      for index, options in enumerate(groups)
    ],
  )
  schedule, history = schedule and schedule(torch.optim.lr_scheduler, optimizer), []
  for grad in grads:
    for path, tensor in tensors.items():
      value = by_path(grad)[path]
      tensor.grad = torch.tensor(value) if value.any() or tensor.grad is not None else None
    optimizer.step()
    if schedule:
      schedule.step()
    history.append({path: tensor.detach().numpy().copy() for path, tensor in tensors.items()})
  return history


def assert_same(history, expected, **tolerance):
  for found, wanted in zip(history, expected, strict=True):
    for path, value in by_path(found).items():
      np.testing.assert_allclose(value, wanted[path], err_msg=path, **(tolerance or CLOSE))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_poly_is_optaxs_bit_for_bit(nesterov, jit):
  steps, of_schedule = 7, {"steps_per_epoch": 2, "power": 0.9, "floor": 1e-6}

  def poly(step):
    left = jnp.maximum(4 - step // 2, 0)
    return jnp.maximum(0.3 * (left / 4) ** 0.9, 1e-6)

  plain = optax.chain(optax.add_decayed_weights(5e-3), optax.sgd(poly, 0.9, nesterov=nesterov))
  grads = [random_tree(seed) for seed in range(1, steps + 1)]
  section = config(
    "sgd", "poly", of_schedule, learning_rate=0.3, weight_decay=5e-3, nesterov=nesterov
  )
  history, _ = ours(section, grads, random_tree(0), jit=jit)
  params, update = random_tree(0), jax.jit(plain.update) if jit else plain.update
  state = plain.init(params)
  for grad, found in zip(grads, history, strict=True):
    updates, state = update(grad, state, params)
    params = optax.apply_updates(params, updates)
    jax.tree.map(np.testing.assert_array_equal, found, params)


GROUPS = ((r"norm|bias$", 1.0, 0.0), (r"^trunk\.", 0.1, None))


def group_of(path):
  return 1 if "norm" in path or path.endswith("bias") else 2 if path.startswith("trunk.") else 0


def torch_groups(rate):
  return ({}, {"weight_decay": 0.0}, {"lr": 0.1 * rate})


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("grouped", [False, True])
def test_optimisers_and_their_groups_are_pytorchs(name, grouped):
  options = {"momentum": 0.9, "nesterov": True} if name == "SGD" else {}
  grads = [random_tree(seed) for seed in range(1, 7)]
  rate, decay = 0.02, 0.1
  section = config(
    name.lower(), learning_rate=rate, weight_decay=decay, groups=GROUPS if grouped else (),
    **options,
  )  # fmt: skip
  history, _ = ours(section, grads, random_tree(0))
  make = lambda optim, groups: getattr(optim, name)(groups, lr=rate, weight_decay=decay, **options)
  grouping = (group_of, torch_groups(rate)) if grouped else ()
  assert_same(history, pytorchs(make, grads, random_tree(0), *grouping))


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_one_cycle_drives_the_momentum_of_each_group(name):
  grads = [random_tree(seed) for seed in range(1, 21)]
  options = {"momentum": 0.9, "nesterov": False} if name == "SGD" else {}
  section = config(
    name.lower(), "one_cycle", learning_rate=0.05, weight_decay=0.01, groups=GROUPS, **options
  )
  history, _ = ours(section, grads, random_tree(0))
  expected = pytorchs(
    lambda optim, groups: getattr(optim, name)(groups, lr=0.05, weight_decay=0.01, **options),
    grads,
    random_tree(0),
    group_of,
    torch_groups(0.05),
    lambda schedulers, optimizer: schedulers.OneCycleLR(
      optimizer, [0.05, 0.05, 0.005], total_steps=20
    ),
  )
  assert_same(history, expected, rtol=1e-5, atol=1e-6)
  still, _ = ours(
    config("sgd", "one_cycle", {"momenta": ()}, learning_rate=0.05), grads, random_tree(0)
  )
  moved, _ = ours(config("sgd", "one_cycle", learning_rate=0.05), grads, random_tree(0))
  assert not np.allclose(still[-1]["head"]["bias"], moved[-1]["head"]["bias"], rtol=1e-3)


CLASSES = 3


def late_grads():
  """The trunk from the first step on, the head from the third, class k of the rows from the
  (k + 2)-nd on, and each of these without a gradient again at the sixth."""
  shapes = {**SHAPES, "rows": {"kernel": (CLASSES, 4, 2), "bias": (CLASSES, 2)}}
  for step in range(7):
    grads = random_tree(step + 1, shapes)
    has_rows = (np.arange(CLASSES) + 1 <= step) & (step != 5)
    weights = {"trunk": 1, "head": step >= 2 and step != 5}
    scaled = {k: jax.tree.map(lambda g, w=w: g * w, grads[k]) for k, w in weights.items()}
    rows = {
      k: (g * has_rows.reshape(-1, *[1] * (g.ndim - 1))).astype(np.float32)
      for k, g in grads["rows"].items()
    }
    yield {**scaled, "rows": rows}


def split_classes(tree):
  """Each class's rows as a tensor of its own."""
  rows = {k: {str(i): row for i, row in enumerate(v)} for k, v in tree["rows"].items()}
  return {**tree, "rows": rows}


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_modules_and_classes_wait_for_their_first_gradient(name):
  grads = list(late_grads())
  params = random_tree(0, jax.tree.map(np.shape, grads[0]))
  options = {"momentum": 0.9, "nesterov": True} if name == "SGD" else {}
  section = config(name.lower(), learning_rate=0.02, weight_decay=0.1, **options)
  history, _ = ours(section, grads, params, net=Net((), ("head", "rows"), ("rows",)))
  expected = pytorchs(
    lambda optim, groups: getattr(optim, name)(groups, lr=0.02, weight_decay=0.1, **options),
    [split_classes(grad) for grad in grads],
    split_classes(params),
  )
  assert_same([split_classes(found) for found in history], expected)
  jax.tree.map(np.testing.assert_array_equal, history[1]["head"], params["head"])
  assert np.all(history[0]["trunk"]["norm"]["scale"] != params["trunk"]["norm"]["scale"])
  np.testing.assert_array_equal(history[2]["rows"]["bias"][2], params["rows"]["bias"][2])
  assert np.any(history[3]["rows"]["bias"][2] != params["rows"]["bias"][2])


def test_a_module_is_one_over_all_its_tensors_whatever_their_group():
  grads = [random_tree(seed) for seed in range(1, 4)]
  for grad in grads:
    grad["head"]["kernel"] *= 0
  section = config("sgd", learning_rate=0.1, weight_decay=0.1, groups=((r"bias$", 2.0, 0.0),))
  params = random_tree(0)
  (found, *_), _ = ours(section, grads, params, net=Net(late=("head",)))
  kernel = params["head"]["kernel"]
  np.testing.assert_allclose(found["head"]["kernel"], kernel * (1 - 0.1 * 0.1 * 1.9), rtol=1e-6)


def test_what_is_frozen_is_left_out():
  frozen = (("trunk", "norm", "scale"), ("head", "kernel"), ("head", "bias"))
  grads = [random_tree(seed) for seed in range(1, 4)]
  history, state = ours(config("adam"), grads, random_tree(0), net=Net(frozen))
  free, _ = ours(config("adam"), grads, random_tree(0))
  jax.tree.map(np.testing.assert_array_equal, history[-1]["head"], random_tree(0)["head"])
  found, wanted = history[-1]["trunk"], free[-1]["trunk"]
  np.testing.assert_array_equal(found["norm"]["scale"], random_tree(0)["trunk"]["norm"]["scale"])
  jax.tree.map(np.testing.assert_array_equal, found["conv"], wanted["conv"])
  paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(state)]
  assert any("'kernel'" in path for path in paths)
  assert not any("'scale'" in path or "'head'" in path for path in paths)


def test_a_frozen_per_class_module_is_nothing_to_do():
  net = Net((("head", "kernel"), ("head", "bias")), ("head",), ("head",))
  history, _ = ours(config("sgd"), [random_tree(1)], random_tree(0), net=net)
  jax.tree.map(np.testing.assert_array_equal, history[0]["head"], random_tree(0)["head"])


def test_two_networks_and_one_trace_on_a_mesh():
  """Networks have flags and frozen tensors of their own; the state stays one plain pytree."""
  nets = {"student": Net(), "other": Net((("head", "bias"),), ("trunk",), ("trunk",))}
  shapes = {**SHAPES, "trunk": {"kernel": (4, 2, 3)}}
  params = {"student": random_tree(0), "other": random_tree(1, shapes)}
  section = config("adamw", "one_cycle", groups=((r"^head", 10.0, None),))
  optimizer, traces = make_optimizer(section, 4, nets), []

  def step(grads, state, params):
    traces.append(1)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  mesh = jax.make_mesh((len(jax.devices()),), ("data",))
  mapped = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=P(), out_specs=P()))
  everywhere = partial(jax.device_put, device=NamedSharding(mesh, P()))
  plain, plain_state = params, jax.jit(optimizer.init)(params)
  params, state = everywhere((plain, plain_state))
  for seed in range(3):
    grads = {"student": random_tree(seed), "other": random_tree(seed, shapes)}
    params, state = mapped(everywhere(grads), state, params)
    updates, plain_state = optimizer.update(grads, plain_state, plain)
    plain = optax.apply_updates(plain, updates)
  jax.tree.map(partial(np.testing.assert_allclose, **CLOSE), params, plain)
  assert len(traces) == 1
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
  assert jax.tree.structure(state) == jax.tree.structure(plain_state)


@golden.cases("unimatch_v2/adamw*")
def test_unimatchs_adamw(case):
  names = sorted(name.removeprefix("init_") for name in case if name.startswith("init_"))
  b1, b2, eps, decay = case["defaults_f64"].tolist()
  steps = int(case["total_iters"])
  of_schedule = {"first": -1, "steps_per_epoch": 1, "floor": 0.0}
  section = config(
    "adamw", "poly", of_schedule, learning_rate=float(case["lr_f64"]), b1=b1, b2=b2, eps=eps,
    weight_decay=decay, groups=((r"^head\.", float(case["lr_multi_f64"]), None),),
  )  # fmt: skip
  unused = np.ones_like(case["unused_after"])
  params = {name: {"w": case[f"init_{name}"]} for name in names} | {"unused": {"w": unused}}
  grads = [
    {name: {"w": case[f"grad_{name}"][step]} for name in names} | {"unused": {"w": unused * 0}}
    for step in range(steps)
  ]
  history, _ = ours(section, grads, params, net=Net(late=("unused",)))
  for step, found in enumerate(history):
    for name in names:
      np.testing.assert_allclose(found[name]["w"], case[name][step], rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(history[-1]["unused"]["w"], case["unused_after"])


@golden.cases("reco/sgd_nesterov*")
def test_recos_sgd(case):
  section = config(
    "sgd", **{key: float(case[{"learning_rate": "lr"}.get(key, key)]) for key in
              ("learning_rate", "momentum", "weight_decay")},
  )  # fmt: skip
  grads = [{"all": {"w": grad}} for grad in case["grads"]]
  history, _ = ours(section, grads, {"all": {"w": case["init"]}})
  for found, expected in zip(history, case["params"], strict=True):
    np.testing.assert_allclose(found["all"]["w"], expected, rtol=1e-6, atol=1e-7)


@golden.cases("c3_semiseg/duplicated_params*")
def test_tensors_that_are_listed_several_times(case):
  """With Adam. PyTorch's SGD begins a listed tensor's momentum anew each time in the first step
  alone, which its version of the original's time did not."""
  tensors = range(len(case["multiplicity"]))
  groups = tuple((rf"^t{i}\.", 1.0, None, int(case["multiplicity"][i])) for i in tensors)
  section = config("adam", learning_rate=float(case["lr"]), groups=groups)
  tree = lambda rows: {f"t{i}": {"w": row} for i, row in enumerate(rows)}
  history, _ = ours(section, [tree(grads) for grads in case["grads"]], tree(case["initial"]))
  for found, expected in zip(history, case["adam__params"], strict=True):
    for i in tensors:
      np.testing.assert_allclose(found[f"t{i}"]["w"], expected[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  "section, message",
  [
    (config("sdg"), "name='sdg': did you mean 'sgd'"),
    (config("sgd", momentun=0.9), "momentun is no key of 'sgd': did you mean 'momentum'"),
    (config("adam", nesterov=True), "nesterov is no key of 'adam'"),
    (config("sgd", momentum="much"), "momentum='much' must be a number"),
    (config("sgd", "polly"), "schedule.name='polly': did you mean 'poly'"),
    (config("sgd", "poly", {"powr": 1.0}), "powr is no key of 'poly': did you mean 'power'"),
    (config("sgd", "cosine", {"power": 1.0}), "schedule.power is no key of 'cosine'"),
    (config("sgd", groups=("head",)), "'head'"),
    (config("sgd", groups=(("head", 2.0),)), r"\('head', 2.0\)"),
    (config("sgd", groups=(("head", 0.0, None),)), "above 0"),
    (config("sgd", groups=(("head", 1.0, "0"),)), "decay or None"),
    (config("sgd", groups=(("head", 1.0, None, 0),)), "number of times"),
  ],
)
def test_what_is_wrong_is_said(section, message):
  with pytest.raises(ValueError, match=message):
    make_optimizer(section, 10, {"student": PLAIN})


def test_a_group_of_nothing_is_an_error():
  groups = ((r"^head\.", 10.0, None), (r"^haed\.", 10.0, None))
  optimizer = make_optimizer(config("sgd", groups=groups), 10, {"student": PLAIN})
  with pytest.raises(ValueError, match="haed"):
    optimizer.init({"student": random_tree(0)})
