"""The schedule and the updates of the original's optimiser."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from semiseg_jax.methods import make_method
from semiseg_jax.schedules import cosine_decay
from semiseg_jax.training.optimizers import make_optimizer, poly_schedule
from semiseg_jax.training.step import moving_average
from tests import golden

ULP = 6e-8  # of float32 just below 1


@golden.cases("reco/poly_lr*")
def test_poly_schedule(case):
  for index in range(sum(name.startswith("config") for name in case)):
    rate, epochs, power, floor = case[f"config{index}"]
    schedule = poly_schedule(rate, int(epochs), 7, power, floor)
    steps = np.arange(int(epochs)) * 7
    for within in (0, 6):  # constant inside an epoch
      np.testing.assert_allclose(schedule(steps + within), case[f"lr{index}"], rtol=1e-5)  # float32


@golden.cases("memory_bank/schedules*")
def test_schedules_that_follow_every_step(case):
  steps, iterations = int(case["num_iterations"]), jnp.asarray(case["iterations"], jnp.int32)
  for name, rate in (("2e4", 2e-4), ("4e4", 4e-4)):
    schedule = poly_schedule(rate, steps, 1, float(case["lr_power"]), 0.0)
    np.testing.assert_allclose(schedule(iterations), case[f"lr_poly_{name}_f64"], rtol=1e-6)
  for name, warmup_rate in (("ema_alpha_f64", 10), ("ema_alpha_less_memory_and_da_f64", 1)):
    decay = jax.jit(cosine_decay, static_argnums=(1, 2))(iterations, steps, warmup_rate)
    np.testing.assert_allclose(decay, case[name], rtol=0, atol=ULP)


def test_plain_momentum_at_a_rate_for_every_step():
  config = ConfigDict({
    "learning_rate": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.01,
    "steps_per_epoch": 1, "power": 0.9, "floor": 0.0,
  })  # fmt: skip
  optimizer = make_optimizer(config, 5)
  params, expected, buffer = jnp.ones(2), np.ones(2), 0.0
  state = optimizer.init(params)
  for step in range(5):
    grads = np.array([0.3, -0.2 * step])
    updates, state = optimizer.update(jnp.asarray(grads, jnp.float32), state, params)
    params = optax.apply_updates(params, updates)
    buffer = 0.9 * buffer + grads + 0.01 * expected
    expected = expected - 0.1 * (1 - step / 5) ** 0.9 * buffer
    np.testing.assert_allclose(params, expected, rtol=1e-5)


@golden.cases("reco/ema_decay*")
def test_teacher_follows_the_student(case):
  decay_at = make_method({"name": "mean_teacher", "ema_decay": float(case["alpha"])}).teacher_decay
  average = case["init"]
  for step, params in zip(case["step"], case["params"], strict=True):
    decay = decay_at(types.SimpleNamespace(step=jnp.int32(step)))
    np.testing.assert_allclose(decay, case["decay"][step], rtol=1e-6, atol=1e-7)
    average = moving_average(average, params, decay)
    np.testing.assert_allclose(average, case["ema"][step], rtol=1e-5, atol=1e-6)


def test_nesterov_momentum_with_decay_in_the_gradient():
  config = ConfigDict({
    "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01,
    "steps_per_epoch": 1000, "power": 0.9, "floor": 1e-6,
  })  # fmt: skip
  optimizer = make_optimizer(config, 10)
  rng = np.random.default_rng(0)
  params = jnp.asarray(rng.normal(size=4), jnp.float32)
  expected, buffer, state = np.asarray(params, np.float64), 0.0, optimizer.init(params)
  for _ in range(4):
    grads = rng.normal(size=4).astype(np.float32)
    updates, state = optimizer.update(jnp.asarray(grads), state, params)
    params = optax.apply_updates(params, updates)
    decayed = grads + 0.01 * expected
    buffer = 0.9 * buffer + decayed
    expected = expected - 0.1 * (decayed + 0.9 * buffer)
    np.testing.assert_allclose(params, expected, rtol=1e-5)
