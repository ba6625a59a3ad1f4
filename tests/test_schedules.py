"""Every schedule against PyTorch's, and against what the originals recorded."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.schedules import (
  Cosine,
  OneCycle,
  Poly,
  Schedule,
  cosine_decay,
  log_ramp_up,
  ramp_up,
)
from tests import golden

ULP = 6e-8  # of float32 just below 1
CLOSE = {"rtol": 1e-5, "atol": 1e-12}  # rates in float32 against float64


def rates(schedule, peak, steps):
  return np.asarray(schedule.rate(peak, steps, jnp.arange(steps)))


def each_step(**fields):
  return Poly(steps_per_epoch=1, floor=0.0, **fields)


@golden.cases("reco/poly_lr*")
def test_poly_once_per_epoch(case):
  for index in range(sum(name.startswith("config") for name in case)):
    rate, epochs, power, floor = map(float, case[f"config{index}"])
    schedule = Poly(steps_per_epoch=7, power=power, floor=floor)
    steps = np.arange(int(epochs)) * 7
    for within in (0, 6):  # constant inside an epoch
      found = schedule.rate(rate, int(epochs) * 7, steps + within)
      np.testing.assert_allclose(found, case[f"lr{index}"], **CLOSE)


@golden.cases("memory_bank/schedules*")
def test_schedules_that_follow_every_step(case):
  steps, iterations = int(case["num_iterations"]), jnp.asarray(case["iterations"], jnp.int32)
  for name, rate in (("2e4", 2e-4), ("4e4", 4e-4)):
    found = each_step(power=float(case["lr_power"])).rate(rate, steps, iterations)
    np.testing.assert_allclose(found, case[f"lr_poly_{name}_f64"], rtol=1e-6)
  for name, warmup_rate in (("ema_alpha_f64", 10), ("ema_alpha_less_memory_and_da_f64", 1)):
    decay = jax.jit(cosine_decay, static_argnums=(1, 2))(iterations, steps, warmup_rate)
    np.testing.assert_allclose(decay, case[name], rtol=0, atol=ULP)


@golden.cases("dst_cbc/lr_schedule*")
def test_poly_from_the_first_step_on(case):
  for name in (name.removesuffix("_base") for name in case if name.endswith("_base")):
    base, steps = float(case[f"{name}_base"]), int(case[f"{name}_total"])
    np.testing.assert_allclose(rates(each_step(), base, steps), case[f"{name}_lr"], **CLOSE)
    assert each_step().rate(base, steps, steps) == case[f"{name}_after_last"]


@golden.cases("unimatch_v2/schedules*")
def test_poly_that_lags_a_step(case):
  for name, steps, rate in zip(case["names"], case["total_iters"], case["lr_f64"], strict=True):
    set_after = case[f"{name}.iterations"]
    found = each_step(first=-1).rate(float(rate), int(steps), jnp.asarray(set_after + 1))
    np.testing.assert_allclose(found, case[f"{name}.lr_set_after_f64"], **CLOSE)


@golden.cases("unimatch_v2/schedule_run*")
def test_poly_that_lags_a_step_in_a_run(case):
  steps, rate = int(case["total_iters"]), float(case["lr_f64"])
  for column, factor in enumerate((1.0, float(case["lr_multi_f64"]))):
    found = each_step(first=-1).rate(rate * factor, steps, jnp.asarray(case["iteration"] + 1))
    np.testing.assert_allclose(found, case["lr_set_after_f64"][:, column], **CLOSE)


@golden.cases("c3_semiseg/schedules*")
def test_c3(case):
  epochs, per_epoch = case["poly_epochs_iters"].tolist()
  for column, base in enumerate(case["base_lrs"].tolist()):
    for name, warmup in (("poly", 0), ("poly_warmup1", 1)):
      schedule = each_step(first=1, warmup_steps=warmup * per_epoch)
      found = rates(schedule, base, epochs * per_epoch)
      np.testing.assert_allclose(found, case[f"{name}__lr"][:, column], **CLOSE)
    resumed = case["poly_resume_epoch3__lr"][:, column]
    found = rates(each_step(first=1), base, epochs * per_epoch)[2 * per_epoch :]
    np.testing.assert_allclose(found, resumed, **CLOSE)
  steps = int(np.prod(case["onecycle_epochs_iters"]))
  for name in (name.removesuffix("__lr") for name in case if re.match("onecycle.*__lr", name)):
    check_one_cycle(case, name, case["base_lrs"], case[f"{name}__initial_lr"], steps)


@golden.cases("c3_semiseg/schedules*")
def test_ramps_equal_c3s(case):
  for steps in case["rampup_lengths"].tolist():
    for name, ramp in (("sigmoid", ramp_up), ("log", log_ramp_up)):
      found = ramp(case["rampup_current"], steps)
      np.testing.assert_allclose(found, case[f"{name}_rampup_{steps}"], rtol=1e-6)


@golden.cases("segmentation_zoo/lr_schedules*")
def test_zoo(case):
  bases = case["poly_3x5__after_construction"]  # the same two groups in all of them
  for name in (name.removesuffix("__lr") for name in case if name.endswith("__lr")):
    warmup, epochs, per_epoch = re.match(r".*?(?:warm(\d+)_)?(\d+)x(\d+)", name).groups()
    steps, started = int(epochs) * int(per_epoch), case[f"{name}__after_construction"]
    if name.startswith("onecycle"):
      check_one_cycle(case, name, bases, started, steps)
      continue
    schedule = each_step(first=1, warmup_steps=int(warmup or 0) * int(per_epoch))
    assert not schedule.momenta
    for column, base in enumerate(bases.tolist()):
      found = rates(schedule, base, steps)
      np.testing.assert_allclose(found, case[f"{name}__lr"][:, column], **CLOSE)


def test_the_ramp_ends_at_one():
  steps = np.array([0, 1999, 2000, 2001, 10**6])
  ramp = np.asarray(ramp_up(steps, 2000))
  assert ramp[0] == np.float32(np.exp(-5)) and (np.diff(ramp) >= 0).all()
  assert (ramp[2:] == 1).all() and ramp[1] < 1


def check_one_cycle(case, name, bases, started, steps):
  """The shape is read from the vector: where it turns, where it starts, how far it goes."""
  recorded, momentum = case[f"{name}__lr"], case[f"{name}__momentum"].reshape(steps, -1)[:, 0]
  schedule = OneCycle(
    first=1,
    rise=(int(recorded[:, 0].argmax()) + 1) / steps,
    divide=float(bases[0] / started[0]),
    momenta=(float(momentum.min()), float(momentum[-1])),
  )
  for column, base in enumerate(bases.tolist()):
    np.testing.assert_allclose(rates(schedule, base, steps), recorded[:, column], **CLOSE)
  np.testing.assert_allclose(schedule.momentum(steps, jnp.arange(steps)), momentum, rtol=1e-6)


def torch_rates(make, steps, **options):
  torch = pytest.importorskip("torch")
  optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
  schedule, seen = make(torch.optim.lr_scheduler, optimizer), []
  for _ in range(steps):
    (group,) = optimizer.param_groups
    seen.append((group["lr"], group["momentum"]))
    optimizer.step()
    schedule.step()
  return np.array(seen).T


@pytest.mark.parametrize("steps, rise", [(20, 0.3), (50, 0.3), (8, 0.5)])
def test_one_cycle_is_pytorchs(steps, rise):
  expected, momentum = torch_rates(
    lambda torch, optimizer: torch.OneCycleLR(optimizer, 0.1, total_steps=steps, pct_start=rise),
    steps,
  )
  schedule = OneCycle(rise=rise)
  np.testing.assert_allclose(rates(schedule, 0.1, steps), expected, **CLOSE)
  np.testing.assert_allclose(schedule.momentum(steps, jnp.arange(steps)), momentum, rtol=1e-6)


def test_cosine_is_pytorchs():
  expected, _ = torch_rates(
    lambda torch, optimizer: torch.CosineAnnealingLR(optimizer, 30, eta_min=1e-4), 30
  )
  np.testing.assert_allclose(rates(Cosine(floor=1e-4), 0.1, 30), expected, **CLOSE)


def test_warm_up_of_poly_and_constant_is_pytorchs_lambda():
  decay = lambda step: step / 5 if step < 5 else (1 - step / 30) ** 0.9
  expected, _ = torch_rates(lambda torch, optimizer: torch.LambdaLR(optimizer, decay), 30)
  np.testing.assert_allclose(rates(each_step(warmup_steps=5), 0.1, 30), expected, **CLOSE)
  rise = lambda step: min(step / 5, 1)
  expected, _ = torch_rates(lambda torch, optimizer: torch.LambdaLR(optimizer, rise), 30)
  np.testing.assert_allclose(rates(Schedule(warmup_steps=5), 0.1, 30), expected, **CLOSE)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("schedule", [Schedule(), Poly(), Cosine(), OneCycle(), OneCycle(first=1)])
def test_the_shortest_runs_have_finite_rates_and_what_lies_behind_the_end_too(schedule, steps):
  found = schedule.rate(0.1, steps, jnp.arange(steps + 3))
  assert np.all(np.isfinite(found)) and np.all(found >= 0) and np.all(found <= np.float32(0.1))
