"""The law of N devices, for every method: one step on N devices equals one step on one."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from semiseg_jax.methods import make_method
from semiseg_jax.runtime.mesh import check_divisible, make_mesh, shard_batch
from semiseg_jax.training.step import gradients, make_train_step, state_spec, train_step
from tests.compare import assert_same
from tests.tiny import random_batch, run_steps, tiny_state

RECO = {"name": "reco", "num_queries": 8, "num_negatives": 16, "strong_threshold": 0.9,
        "weak_threshold": 0.2, "scale_range": (0.5, 1.5)}  # fmt: skip
METHODS = {
  "supervised": {"name": "supervised"},
  "classmix": {"name": "mean_teacher", "mixing": "classmix", "scale_range": (0.5, 1.5),
               "strong_threshold": 0.2},
  "reco_classmix": RECO,
  "reco_supervised": {**RECO, "mixing": None},
  "reco_partial": {**RECO, "mixing": "cutmix", "partial": True},
  "reco_two_domains": RECO,
}  # fmt: skip

OPTIMIZER = optax.sgd(0.05, momentum=0.9, nesterov=True)


def batches(name: str, count: int = 2) -> list[dict]:
  streams = ("labeled", "unlabeled", "domain")[: 3 if name.endswith("domains") else 2]
  sparse = name.endswith("partial")
  return [random_batch(8, 32, 5, seed, sparse, streams) for seed in range(count)]


def compared(state) -> tuple:
  return state.params, state.batch_stats, state.teacher


@pytest.fixture(scope="module")
def on_one_device() -> dict:
  return {}


@pytest.mark.parametrize(
  ("name", "devices"),
  [
    *(
      pytest.param(name, devices, marks=pytest.mark.slow)
      for name in ("supervised", "classmix", "reco_classmix")
      for devices in (2, 4)
    ),
    *((name, 8) for name in ("supervised", "classmix", "reco_classmix")),
    *(
      pytest.param(name, 8, marks=pytest.mark.slow)
      for name in ("reco_supervised", "reco_partial", "reco_two_domains")
    ),
  ],
)
def test_law_of_n_devices(name, devices, on_one_device):
  if name not in on_one_device:
    on_one_device[name] = run_steps(METHODS[name], OPTIMIZER, 1, batches(name))
  state = run_steps(METHODS[name], OPTIMIZER, devices, batches(name))
  assert int(state.step) == 2
  assert_same(compared(state), compared(on_one_device[name]))


def test_drawing_on_the_device_runs():
  config = {**METHODS["reco_classmix"], "scope": "device"}
  state = run_steps(config, OPTIMIZER, 4, batches("reco_classmix"))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


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


def test_same_step_under_pmap():
  method = make_method(METHODS["reco_classmix"])
  state, _ = tiny_state(method, OPTIMIZER, 4)
  batch = batches("reco_classmix", 1)[0]
  state = pmap_step(method, OPTIMIZER, state, 4)(state, batch)
  assert_same(compared(state), compared(run_steps(METHODS["reco_classmix"], OPTIMIZER, 1, [batch])))


def test_accumulated_gradients_are_the_mean_over_batches():
  method = make_method(METHODS["supervised"])
  pair = [{"labeled": b["labeled"]} for b in batches("supervised")]
  state, mesh = tiny_state(method, optax.sgd(1.0), 2)
  start = jax.tree.map(np.asarray, state.params)
  step = make_train_step(method, optax.sgd(1.0), mesh, accumulate=2)
  stacked = jax.tree.map(lambda *x: np.stack(x), *pair)
  state, metrics = step(state, shard_batch(stacked, mesh, leading=1))
  moved = jax.tree.map(lambda a, b: np.asarray(a) - b, state.params, start)

  grads = []
  for index, batch in enumerate(pair):
    fresh, _ = tiny_state(method, optax.sgd(1.0), 2)
    key = jax.random.fold_in(jax.random.fold_in(fresh.rng, 0), index)
    grads.append(gradient_of(method, mesh, fresh.replace(rng=key), batch))
  mean = jax.tree.map(lambda a, b: -(a + b) / 2, *grads)
  assert_same(moved, mean)
  assert int(state.step) == 1 and np.isfinite(metrics["loss"])


def gradient_of(method, mesh, state, batch):
  """The gradient of one batch with state.rng as the step's own key."""
  per_device = lambda state, batch: gradients(state, batch, state.rng, method)[1]
  mapped = jax.shard_map(per_device, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
  return jax.jit(mapped)(state, shard_batch(batch, mesh))


def test_teacher_copies_the_student_at_the_first_update():
  state = run_steps(METHODS["classmix"], OPTIMIZER, 1, batches("classmix", 1))
  assert_same(state.teacher.params, state.params, 0.0)
  different = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.teacher.batch_stats,
                           state.batch_stats)  # fmt: skip
  assert max(jax.tree.leaves(different)) > 1e-3  # its statistics are its own


def test_images_of_another_domain_are_learnt_from():
  both = [random_batch(8, 32, 5, 0, streams=("labeled", "domain"))]
  alone = [{"labeled": both[0]["labeled"]}]
  params = [run_steps(METHODS["supervised"], OPTIMIZER, 2, b).params for b in (both, alone)]
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), *params)
  assert max(jax.tree.leaves(moved)) > 1e-3


def test_a_batch_that_cannot_be_shared_out():
  batches = {"data.labeled_batch": 10, "data.unlabeled_batch": 24, "evaluation.batch": 4}
  message = (
    "config.data.labeled_batch=10, config.evaluation.batch=4 can't be divided among 8 devices: "
    "use config.data.labeled_batch=8 or 16, config.evaluation.batch=8, "
    "or run on a number of devices that divides 2"
  )
  with pytest.raises(ValueError, match=message):
    check_divisible(make_mesh(), **batches)
  with pytest.raises(ValueError, match="or run on a single device"):  # as the memory bank's configs
    check_divisible(make_mesh(), **{"data.labeled_batch": 5, "data.unlabeled_batch": 2})
