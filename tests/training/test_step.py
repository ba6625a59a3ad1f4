"""The train step under other mappings, with sub-batches, and with images of a second domain."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from semiseg_jax.methods import make_method
from semiseg_jax.runtime import mesh
from semiseg_jax.runtime.mesh import shard_batch
from semiseg_jax.training.step import gradients, make_train_step, state_spec, train_step
from tests.compare import assert_same
from tests.methods.laws import TOLERANCE
from tests.tiny import (
  OPTIMIZER,
  batches_of,
  random_batch,
  run_steps,
  small_methods,
  tiny_state,
)

SMALL = small_methods()


pytestmark = pytest.mark.usefixtures("traced_fast")


def pmap_step(method, optimizer, state, devices: int):
  """(state, batch) -> state by the step under `jax.pmap`; whole arrays in and out.

  An array that the mesh would share out goes in as its parts, with an axis of devices in front.
  """
  specs = state_spec(method, state)
  each = lambda function, *trees: jax.tree.map(function, *trees, is_leaf=lambda x: type(x) is P)

  def split(spec, part):
    cut = lambda x: np.stack(np.split(np.asarray(x), devices, tuple(spec).index("data")))
    return jax.tree.map(cut if tuple(spec) else np.asarray, part)

  def join(spec, part):
    glue = lambda x: np.concatenate(np.asarray(x), tuple(spec).index("data"))
    return jax.tree.map(glue if tuple(spec) else np.asarray, part)

  axes = each(lambda spec: 0 if tuple(spec) else None, specs)
  mapped = jax.pmap(
    lambda state, batch: train_step(state, batch, method=method, optimizer=optimizer)[0],
    "data", in_axes=(axes, 0), out_axes=axes, devices=jax.devices()[:devices],
  )  # fmt: skip
  return lambda state, batch: each(
    join, specs, mapped(each(split, specs, state), split(P("data"), batch))
  )


@pytest.mark.parametrize(
  "name",
  [
    "supervised/plain",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("reco/classmix", "memory_bank/short")),
  ],
)
def test_same_steps_under_pmap(name):
  method = make_method(SMALL[name])
  batches = batches_of(method, 3)
  state, _ = tiny_state(method, OPTIMIZER, 4)
  step = pmap_step(method, OPTIMIZER, state, 4)
  for batch in batches:
    state = step(state, batch)
  expected, _ = run_steps(method, 1, batches)
  assert_same(state.networks, expected.networks, TOLERANCE)
  assert_same(state.method_state, expected.method_state, TOLERANCE)


def test_the_state_comes_back_as_it_lies_in_memory(monkeypatch):
  method = make_method(SMALL["supervised/plain"])
  batches = batches_of(method, 2)
  expected, _ = run_steps(method, 1, batches)
  monkeypatch.setattr(mesh, "platform", lambda: "gpu")  # which turns convolutions' kernels
  state, devices = tiny_state(method, OPTIMIZER, 1)
  laid = mesh.forms(state, state_spec(method, state), devices)
  step = make_train_step(method, OPTIMIZER, devices, laid=laid)
  kernel = lambda state: state.networks["student"].params["classifier"]["kernel"]
  for batch in batches:
    before, (state, _) = state, step(state, mesh.shard_batch(batch, devices))
    assert kernel(before).is_deleted()
  assert kernel(state).format.layout.major_to_minor == (3, 0, 1, 2)
  assert step._cache_size() == 1
  assert_same(state.networks, expected.networks, TOLERANCE)
  assert_same(state.opt_state, expected.opt_state, TOLERANCE)


def test_accumulated_gradients_are_the_mean_over_batches():
  method = make_method(SMALL["supervised/plain"])
  pair = batches_of(method)
  state, mesh = tiny_state(method, optax.sgd(1.0), 2)
  start = jax.tree.map(np.asarray, state.networks["student"].params)
  step = make_train_step(method, optax.sgd(1.0), mesh, accumulate=2)
  stacked = jax.tree.map(lambda *x: np.stack(x), *pair)
  state, metrics = step(state, shard_batch(stacked, mesh, leading=1))
  moved = jax.tree.map(lambda a, b: np.asarray(a) - b, state.networks["student"].params, start)

  grads, gradient = [], gradient_of(method, mesh)
  for index, batch in enumerate(pair):
    fresh, _ = tiny_state(method, optax.sgd(1.0), 2)
    key = jax.random.fold_in(jax.random.fold_in(fresh.rng, 0), index)
    grads.append(gradient(fresh.replace(rng=key), shard_batch(batch, mesh)))
  mean = jax.tree.map(lambda a, b: -(a + b) / 2, *grads)
  assert_same(moved, mean)
  assert int(state.step) == 1 and np.isfinite(metrics["loss"])


def gradient_of(method, mesh):
  """The student's gradient of a state and one batch, with state.rng as the step's own key."""
  per_device = lambda state, batch: gradients(state, batch, state.rng, method)[1]["student"]
  mapped = jax.shard_map(per_device, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
  return jax.jit(mapped)


@pytest.mark.slow
def test_sub_batches_fill_the_bank_one_after_the_other():
  """What a batch leaves in the method's state is there for the next one of the same update."""
  method = make_method(SMALL["memory_bank/short"])
  state, mesh = tiny_state(method, OPTIMIZER, 2)
  step = make_train_step(method, OPTIMIZER, mesh, accumulate=2)
  for update in range(2):
    pair = [random_batch(seed=2 * update + index) for index in range(2)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *pair)
    state, _ = step(state, shard_batch(stacked, mesh, leading=1))
  assert int(state.method_state.tables.step) == 4


@pytest.mark.slow
def test_drawing_on_the_device_runs():
  method = make_method({**SMALL["reco/classmix"], "scope": "device"})
  state, _ = run_steps(method, 4, batches_of(method))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.networks))


@pytest.mark.slow  # the rule itself is in tests/methods/test_mean_teacher.py
def test_teacher_copies_the_student_at_the_first_update():
  method = make_method(SMALL["reco/classmix"])
  state, _ = run_steps(method, 8, batches_of(method, 1))
  student, teacher = state.networks["student"], state.networks["teacher"]
  assert_same(teacher.params, student.params, 0.0)
  different = jax.tree.map(lambda a, b: np.abs(a - b).max(), *(teacher[1], student[1]))
  assert max(jax.tree.leaves(different)) > 1e-3  # its statistics are its own


@pytest.mark.slow
def test_images_of_another_domain_are_learnt_from():
  method = make_method(SMALL["supervised/plain"])
  both = batches_of(method, 1, domain=True)
  alone = [{"labeled": both[0]["labeled"]}]
  params = [run_steps(method, 8, b)[0].networks["student"].params for b in (both, alone)]
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), *params)
  assert max(jax.tree.leaves(moved)) > 1e-3
